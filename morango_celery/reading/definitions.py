"""Definitions of methods and classes: their names, and their places in files."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from typing_extensions import override


class Place(NamedTuple):
    """Place of a definition in a file."""

    file: str
    """Path relative to the folder that Python imports it from, such as site-packages or the project's."""
    line: int

    @override
    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Definition:
    """Function, class or other attribute that takes part in a decision."""

    name: str
    """Name within its module, such as ``Attempt.save``."""
    module: str
    subject: object
    """The very object that was looked at."""
    overrides: str = ""
    """Dotted name of the definition that it takes the place of; empty if there is none."""

    @property
    def dotted_name(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def place(self) -> Place | None:
        """Return the place in its file; None for code without a source, as in C."""
        return _place(self.subject)


def overriding(cls: type[Any], base: type[Any], *names: str) -> tuple[Definition, ...]:
    """Return the definitions of methods that run in place of, before or after those of a base class.

    They are those of all classes that the base class doesn't derive from. A mixin behind the base class
    counts too: ``super()`` leads to it.
    """
    return tuple(
        _attribute(owner, name, next((each for each in behind if name in vars(each)), None))
        for name in names
        for owner, behind in _own_classes(cls, base)  # type: ignore[arg-type]  # a class has a hash
        if name in vars(owner)
    )


def is_overridden(cls: type[Any], base: type[Any], *names: str) -> bool:
    """Return True if there is anything `overriding`, in a fraction of the time."""
    for owner, _ in _own_classes(cls, base):  # type: ignore[arg-type]  # a class has a hash
        for name in names:
            if name in owner.__dict__:
                return True
    return False


@lru_cache(maxsize=1_000)
def _own_classes(cls: Any, base: Any) -> list[tuple[type[Any], Sequence[type[Any]]]]:
    """Return the classes that a base class doesn't derive from, each with the classes behind it."""
    return [
        (owner, cls.__mro__[place:])
        for place, owner in enumerate(cls.__mro__, 1)
        if owner not in base.__mro__
    ]


def definition_of(subject: Any) -> Definition:
    """Return the definition of a function or a class; of an instance's class for everything else."""
    if not hasattr(subject, "__qualname__"):
        subject = type(subject)
    return Definition(subject.__qualname__, subject.__module__, subject)


def attribute_of(cls: type[Any], name: str) -> Definition:
    """Return the definition of an attribute, by the first class that has it.

    :raises StopIteration: no class has it
    """
    return _attribute(next(owner for owner in cls.__mro__ if name in vars(owner)), name)


def _attribute(owner: type[Any], name: str, overridden: type[Any] | None = None) -> Definition:
    overrides = f"{overridden.__module__}.{overridden.__qualname__}.{name}" if overridden else ""
    return Definition(f"{owner.__qualname__}.{name}", owner.__module__, vars(owner)[name], overrides)


def _place(subject: Any) -> Place | None:
    for inside in ("__func__", "fget", "func"):  # of class methods, properties and cached properties
        subject = getattr(subject, inside, subject)
    if isinstance(subject, FunctionType):
        # Of the very code that runs: inspect would look behind a decorator at the code that it wraps
        return Place(_relative(subject.__code__.co_filename), subject.__code__.co_firstlineno)
    if not isinstance(subject, type):
        return None
    try:
        return Place(_relative(inspect.getfile(subject)), _line_of_class(subject))
    except (OSError, TypeError):
        return None


@lru_cache(maxsize=1_000)
def _line_of_class(cls: type[Any]) -> int:
    """Return the line of a class. To find it takes milliseconds."""
    return inspect.getsourcelines(cls)[1]


def _relative(file: str) -> str:
    folders = [Path(entry).resolve() for entry in sys.path]
    path = Path(file).resolve()
    inside = [path.relative_to(folder) for folder in folders if path.is_relative_to(folder)]
    return min(inside, key=lambda found: len(found.parts), default=path).as_posix()
