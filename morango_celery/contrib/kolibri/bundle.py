"""Celery needs a newer redis than the one that Kolibri's wheel brings along, and one process has one.

``import kolibri`` puts the folder ``kolibri/dist`` first on ``sys.path``, and Kolibri's command line imports
redis from there, for the cache, before it knows of plug-ins. So this takes it back while nobody has used it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

REDIS = "redis"

BOUND_TO_IT = ("redis_cache", "kolibri.core.utils.cache")
"""What has taken names from redis when it was imported, and takes them anew when it is imported again."""


def use_installed_redis() -> None:
    """Have this process use the redis that is installed, Kolibri's cache included, not that of the bundle.

    Twice: safe; the second time it is there.
    :raises ImportError: none is installed
    """
    import kolibri.dist

    bundle = Path(kolibri.dist.__file__).parent.resolve()
    loaded = sys.modules.get(REDIS)
    if loaded is not None and not _is_within(bundle, str(loaded.__file__)):
        return
    bound = [name for name in BOUND_TO_IT if name in sys.modules]
    for name in [name for name in sys.modules if _belongs_to(name, (REDIS, *BOUND_TO_IT))]:
        del sys.modules[name]
    path = sys.path
    sys.path = [entry for entry in path if not _is_within(bundle, entry)]
    try:
        import_module(REDIS)
    finally:
        sys.path = path
    for name in bound:
        import_module(name)


def _is_within(folder: Path, path: str) -> bool:
    return Path(path).resolve().is_relative_to(folder)


def _belongs_to(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
