"""Of the plug-in for Kolibri, what shows where Kolibri isn't installed. ``make kolibri`` tries the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import redis

from tests.processes import ROOT

BUNDLED = "3.5.3"

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
    "kolibri/core/utils/cache.py": "from redis_cache import USED",
}
"""What of Kolibri's wheel is of importance to it."""


def test_without_kolibri_the_plug_in_says_so() -> None:
    with pytest.raises(ImportError, match=r"plug-in for Kolibri, which isn't installed in this environment"):
        import_module("morango_celery.contrib.kolibri")


@pytest.mark.parametrize("before", ["import kolibri.core.utils.cache", "import kolibri", ""])
def test_celery_and_kolibris_cache_have_the_redis_that_is_installed(tmp_path: Path, before: str) -> None:
    # Given that Kolibri has imported its own or not
    for name, content in LIKE_KOLIBRI.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(line.strip() for line in content.splitlines()))
    script = (
        f"{before}\n"
        "import morango_celery.contrib.kolibri\n"
        "import kombu.transport.redis, os, redis, sys\n"
        "from kolibri.core.utils import cache\n"
        "print(redis.__version__, kombu.transport.redis.redis is redis, cache.USED)\n"
        "print(os.path.basename(sys.path[0]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )

    # Then nothing has that, and Kolibri's other libraries are found as before
    assert done.stderr == ""
    assert done.stdout.split() == [redis.__version__, "True", redis.__version__, "dist"]
