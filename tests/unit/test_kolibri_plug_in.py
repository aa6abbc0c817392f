"""Plug-in for Kolibri, as far as it can be tested without Kolibri. ``make kolibri`` tests the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import redis

from tests.support.processes import ROOT

BUNDLED = "bundled"

LIKE_KOLIBRI = {
    "kolibri/__init__.py": """
        import sys
        from pathlib import Path

        sys.path.insert(0, str(Path(__file__).parent / "dist"))
        """,
    "kolibri/dist/__init__.py": "",
    "kolibri/dist/redis/__init__.py": f"""
        from redis import client

        __version__ = {BUNDLED!r}
        """,
    "kolibri/dist/redis/client.py": "",
    "kolibri/dist/redis_cache.py": "from redis import __version__ as USED",
    "kolibri/dist/tzlocal/__init__.py": f"""
        from tzlocal.utils import get_localzone

        __version__ = {BUNDLED!r}
        """,
    "kolibri/dist/tzlocal/utils.py": """
        def get_localzone(): ...

        class ZoneInfoNotFoundError(Exception): ...
        """,
    "kolibri/core/utils/cache.py": "from redis_cache import USED",
    "kolibri/settings.py": """
        from tzlocal import __version__ as USED
        from tzlocal.utils import ZoneInfoNotFoundError
        """,
}
"""The parts of Kolibri's wheel that matter to it."""


def test_without_kolibri_the_plug_in_says_so() -> None:
    with pytest.raises(ImportError, match=r"plug-in for Kolibri, which isn't installed in this environment"):
        import_module("morango_celery.contrib.kolibri")


@pytest.fixture
def like_kolibri(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that runs a script beside a package like Kolibri, and returns its output."""
    for name, content in LIKE_KOLIBRI.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content))

    def run(script: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.split()

    return run


@pytest.mark.parametrize("before", ["import kolibri.core.utils.cache", "import kolibri", ""])
def test_celery_and_kolibris_cache_have_the_redis_that_is_installed(
    like_kolibri: Callable[[str], list[str]], before: str
) -> None:
    # Whether Kolibri has imported its own or not
    printed = like_kolibri(
        f"""
        {before}
        import morango_celery.contrib.kolibri
        import kombu.transport.redis, os, redis, sys
        from kolibri.core.utils import cache
        print(redis.__version__, kombu.transport.redis.redis is redis, cache.USED)
        print(os.path.basename(sys.path[0]))
        """
    )

    assert printed == [redis.__version__, "True", redis.__version__, "dist"]


@pytest.mark.parametrize("before", ["from celery.utils import time", "import kolibri.settings", ""])
def test_kolibri_has_its_own_tzlocal(like_kolibri: Callable[[str], list[str]], before: str) -> None:
    # Whether Celery has imported another one or not
    printed = like_kolibri(
        f"""
        {before}
        import morango_celery.contrib.kolibri
        import kolibri.settings, tzlocal
        from celery.utils import time
        print(kolibri.settings.USED, tzlocal.__version__, callable(time.get_localzone))
        """
    )

    assert printed == [BUNDLED, BUNDLED, "True"]
