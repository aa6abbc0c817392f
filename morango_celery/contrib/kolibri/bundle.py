"""The choice between Kolibri's bundled libraries and the environment's, which are newer.

``import kolibri`` puts the folder ``kolibri/dist`` first on ``sys.path``, but modules that are imported
already stay. Three libraries must not be left to that:

- redis: Celery needs a newer one. Kolibri's command line imports its own before it knows of plug-ins, for
  the cache; as long as the cache is unused, the import can be undone. The cache works with either.
- typing_extensions: this package needs names that Kolibri's lacks. A newer one has all of the older one's.
- tzlocal: Kolibri needs its own. Celery's command line imports another one before Kolibri, and works with
  either.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

BOUND_TO_REDIS = ("redis_cache", "kolibri.core.utils.cache")
"""Modules that bind names of redis when they are imported, and bind them anew when they are imported
again."""


def sort_out_libraries() -> None:
    """Have Celery and Kolibri use libraries that each of them works with.

    Twice: safe; the second time there is nothing to do.
    :raises ImportError: a library that isn't Kolibri's is not installed
    """
    import kolibri.dist

    bundle = Path(kolibri.dist.__file__).parent.resolve()
    for package, bound_to_it in (("redis", BOUND_TO_REDIS), ("typing_extensions", ())):
        if package not in sys.modules or _is_loaded_from(bundle, package):
            _load_from_elsewhere(bundle, package, bound_to_it)
    if (bundle / "tzlocal").exists() and not _is_loaded_from(bundle, "tzlocal"):
        _forget("tzlocal")


def _load_from_elsewhere(bundle: Path, package: str, bound_to_it: tuple[str, ...]) -> None:
    bound = [name for name in bound_to_it if name in sys.modules]
    _forget(package, *bound_to_it)
    path = sys.path
    sys.path = [entry for entry in path if not Path(entry).resolve().is_relative_to(bundle)]
    try:
        import_module(package)
    finally:
        sys.path = path
    for name in bound:
        import_module(name)


def _forget(*packages: str) -> None:
    """Remove modules from the import cache. Earlier importers keep theirs; the next import takes the first
    on the path."""
    for name in list(sys.modules):
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            del sys.modules[name]


def _is_loaded_from(folder: Path, package: str) -> bool:
    loaded = sys.modules.get(package)
    return loaded is not None and Path(str(loaded.__file__)).resolve().is_relative_to(folder)
