"""The files, and their adaptation to a project's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FILES = Path(__file__).with_name("files")
PROJECT = "myproject"
"""Name of the project in the files: its package, with ``settings.py``, ``celery.py`` and ``wsgi.py``."""
_HIDDEN = {"env.example": ".env.example", "dockerignore": ".dockerignore"}
"""Names of files that are hidden where they are used, and not in a package."""


class UnknownFileError(Exception):
    """There is no such file."""


def names() -> list[str]:
    """Return the names of all files, as they are called in a project."""
    return [_target(path) for path in _paths()]


def text(name: str, project: str = PROJECT) -> str:
    """Return a file's text for a project.

    :param name: one of `names`
    :raises UnknownFileError: it is none of them
    """
    for path in _paths():
        if _target(path) == name:
            return path.read_text(encoding="utf-8").replace(PROJECT, project)
    raise UnknownFileError(f"There is no {name!r}. There are: {', '.join(names())}.")


def target(folder: Path, name: str, project: str) -> Path:
    """Return the path of a file in a project's folder."""
    return folder / name.replace(PROJECT, project)


def is_project(name: str) -> bool:
    """Return True for a name that a package may have, and images and units too."""
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


def _paths() -> Iterator[Path]:
    return iter(sorted(path for path in FILES.rglob("*") if path.is_file()))


def _target(path: Path) -> str:
    name = path.relative_to(FILES).as_posix()
    return _HIDDEN.get(name, name)
