"""Declared equivalents: rules that stand for the methods that a model overrides.

Morango calls a model's own ``save()`` for each record. Where a host's developer declares the requirements of
that code as rules, they are carried out for all records of a batch at once. A declaration names the code that
it stands for by a hash of its source, so another version of that code runs itself, as does the code of a
record that breaks a rule. Nothing is ever refused or changed by a rule that the code would not refuse or
change.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any, TypeAlias

from django.db.models import Field, Model
from django.utils.module_loading import import_string
from morango.models.core import SyncableModel

from morango_celery.errors import UsageError
from morango_celery.rules import Between, Computed, RowExists, Rule, SameAs, TargetIn

__all__ = [
    "Between",
    "Computed",
    "Convert",
    "Equivalent",
    "FieldEquivalent",
    "NotFastPath",
    "RowExists",
    "Rule",
    "SameAs",
    "TargetIn",
    "UnknownCodeError",
    "declare",
    "declare_field",
    "declared",
    "declared_fields",
    "declared_for_field",
    "is_own",
    "source_hash",
]

Convert: TypeAlias = "Callable[[Sequence[Any]], Sequence[Any]]"
"""Converter of one column's JSON values to values for the database's driver. It raises `NotFastPath` if one
isn't plain.

A column is converted as a whole, by functions written in C where possible. That takes a fifth of the time of
a look at each value.
"""


class NotFastPath(Exception):  # noqa: N818  (not an error: the record takes the slow path)
    """Signal that only the slow path can tell the result for a value."""


class UnknownCodeError(UsageError):
    """A declared equivalent names code that isn't there, or that has no source."""


@dataclass(frozen=True)
class Equivalent:
    """Rules that stand for the methods that a model overrides, as long as their source has a given hash."""

    overrides: tuple[str, ...]
    """Names of the overridden methods that the rules stand for, of those that deserializing calls."""
    calls: tuple[str, ...]
    """Code that these call: names of other methods of the model, and dotted paths to functions, classes and
    constants."""
    sha256: str
    """Hash of the source of all of it; see `source_hash`."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class FieldEquivalent:
    """Converter that stands for the methods of a class of fields."""

    convert: Callable[[Field[Any, Any]], Convert | None]
    """Maker of one field's converter; None where only the field's own code can tell. The converter's values
    are those that `Field.get_db_prep_save` would make."""
    calls: tuple[str, ...]
    """Methods of the class, and dotted paths, that the converter stands for."""
    sha256: str


_declared: dict[type[Model], Equivalent] = {}
_declared_fields: dict[type[Any], FieldEquivalent] = {}


def declare(model: type[SyncableModel], equivalent: Equivalent) -> None:
    """Declare an equivalent of a model's own code, in the ``ready()`` of an app.

    Twice: the last one counts.
    """
    _declared[model] = equivalent


def declare_field(field: type[Field[Any, Any]], equivalent: FieldEquivalent) -> None:
    """Declare an equivalent of a field's own code, in the ``ready()`` of an app. Subclasses aren't meant."""
    _declared_fields[field] = equivalent


def declared(model: type[Model]) -> Equivalent | None:
    """Return the equivalent that was declared for a model, whether it matches or not."""
    return _declared.get(model)


def declared_for_field(field: type[Any]) -> FieldEquivalent | None:
    """Return the equivalent that was declared for a class of fields, whether it matches or not."""
    return _declared_fields.get(field)


def declared_fields() -> list[type[Any]]:
    """Return the classes of fields that an equivalent was declared for."""
    return list(_declared_fields)


def source_hash(owner: type[Any], names: Iterable[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the source of code.

    A method counts with all that it overrides in turn, up to the classes of Django and Morango. So a hash
    changes with each version of the code, comments included.

    :param owner: model or class of fields
    :param names: names of its methods, and dotted paths to functions, classes and constants
    :raises UnknownCodeError: something isn't there, or its source can't be read
    """
    digest = hashlib.sha256()
    for name in names:
        sources = [_source(import_string(name), name)] if "." in name else list(_methods(owner, name))
        if not sources:
            raise UnknownCodeError(f"{owner.__qualname__} has no method {name!r} of its own.")
        for source in sources:
            digest.update(f"{name}\n{source}\n".encode())
    return digest.hexdigest()


def is_own(owner: type[Any], name: str) -> bool:
    """Return True if a class has an attribute that is neither Django's nor Morango's."""
    return any(name in vars(cls) for cls in _own_classes(owner))


def _methods(owner: type[Any], name: str) -> Iterable[str]:
    """Yield the source of each definition of a method, that of the class itself first."""
    for cls in _own_classes(owner):
        if name in vars(cls):
            yield _source(vars(cls)[name], f"{cls.__qualname__}.{name}")


def _own_classes(owner: type[Any]) -> list[type[Any]]:
    return [cls for cls in owner.__mro__ if cls.__module__.partition(".")[0] not in _FRAMEWORKS]


_FRAMEWORKS = ("builtins", "django", "morango")
"""Packages with code that is looked at by this app's own tests, not by hashes."""


def _source(found: Any, name: str) -> str:
    function = getattr(found, "__func__", found)
    if not isinstance(function, FunctionType | type):
        if callable(function):
            raise UnknownCodeError(f"{name} is no function, so it has no source.")
        return repr(function)
    try:
        return _read(function)
    except OSError as error:
        raise UnknownCodeError(f"The source of {name} can't be read: {error}.") from error


@lru_cache(maxsize=1_000)
def _read(subject: FunctionType | type[Any]) -> str:
    """Return the source of code. Models share most of theirs, and to find it takes a while.

    :raises OSError: there is none
    """
    if isinstance(subject, type):
        lines = _lines_of_class(subject)
        return "".join(inspect.getblock(lines)) if lines else inspect.getsource(subject)
    # Of the very code that runs: inspect would look behind a decorator at the code that it wraps. And to
    # find the module of a code object, it would look at all modules, for milliseconds.
    code = subject.__code__
    lines = linecache.getlines(code.co_filename, subject.__globals__)[code.co_firstlineno - 1 :]
    if not lines:
        raise OSError(f"no line {code.co_firstlineno} in {code.co_filename}")
    return "".join(inspect.getblock(lines))


def _lines_of_class(cls: type[Any]) -> list[str]:
    """Return a module's lines from the one on that begins a class; none where it takes inspect to find it.

    inspect parses the whole module, which takes megabytes of memory that the process keeps.
    """
    module = sys.modules[cls.__module__]
    lines = linecache.getlines(inspect.getsourcefile(cls) or "", vars(module))
    places = [place for place, line in enumerate(lines) if re.match(rf"class {cls.__qualname__}\b", line)]
    if len(places) != 1:
        return []
    above = (line for line in reversed(lines[: places[0]]) if line.strip() and not line.startswith("#"))
    is_decorated = next(above, "").startswith(("@", ")"))
    return [] if is_decorated else lines[places[0] :]
