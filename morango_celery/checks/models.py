"""System checks of models: of their labels in settings, and of models that are or may have to be
exclusive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Info, register
from django.db.models import Model

from morango_celery.conf import Section, problems, settings
from morango_celery.db.dialect import dialect
from morango_celery.deserialization.exclusive import is_exclusive, known_as_exclusive
from morango_celery.django_compat import SAVING
from morango_celery.upstream import profiles, registered_models

LABELS = ("SAVE_INDIVIDUALLY", "EXCLUSIVE_MODELS")
"""Settings that name models."""

QUERYING = {"objects", "syncing_objects", "_default_manager", "_base_manager", "cursor", "raw"}
"""Names in a function that almost always mean a query."""

FRAMEWORKS = ("django", "morango", "mptt", "rest_framework")


@register("morango_celery")
def check_named_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per label that no installed model has."""
    return [] if problems() else unknown_models("MORANGO_CELERY", settings, LABELS)


def unknown_models(name: str, section: Section, keys: Iterable[str]) -> list[CheckMessage]:
    """Return one error per label under these keys of a section that no installed model has."""
    return [
        Error(
            f"{name}[{key!r}] names {label!r}, which is not installed.",
            hint="Mend the label, or add its app to INSTALLED_APPS.",
            id="morango_celery.E002",
        )
        for key in keys
        for label in getattr(section, key)
        if not _is_installed(label)
    ]


@register("morango_celery")
def check_recognized_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one information per model that is exclusive by its class."""
    return [
        Info(
            f"{model._meta.label} is exclusive, for {why}.",
            hint="Nothing has to be done. Its records are saved one by one, by one process at a time.",
            id="morango_celery.I001",
        )
        for model in _models()
        if (why := known_as_exclusive(model)) is not None
    ]


@register("morango_celery")
def check_querying_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one information per model that isn't exclusive, but has a ``save()`` with queries of its own.

    On SQLite there is none: it has one writer at a time.
    """
    if problems() or dialect().has_one_writer:
        return []
    return [
        Info(
            f"{model._meta.label}.save() has queries of its own ({', '.join(queries)}), which several "
            "processes may execute at the same time.",
            hint="If they count or number something, or write other rows, add it to "
            "MORANGO_CELERY['EXCLUSIVE_MODELS']. If they only refuse records while others are missing, "
            "nothing has to be done.",
            id="morango_celery.I002",
        )
        for model in _models()
        if not is_exclusive(model) and (queries := list(dict.fromkeys(_queries(model))))
    ]


def _is_installed(label: str) -> bool:
    try:
        apps.get_model(label)
    except LookupError:
        return False
    return True


def _models() -> Iterator[type[Model]]:
    for profile in profiles():
        yield from registered_models(profile)


def _queries(model: type[Model]) -> Iterator[str]:
    """Yield the queries that are named in functions of a model's ``save()``, called ones included."""
    seen: set[FunctionType] = set()
    waiting = [function for base in model.__mro__ for name in SAVING if (function := _own(base, name))]
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        names = set(_names(function.__code__))
        yield from (f"{function.__name__}() uses {name}" for name in sorted(names & QUERYING))
        waiting += [called for base in model.__mro__ for name in names if (called := _own(base, name))]


def _own(base: type, name: str) -> FunctionType | None:
    """Return a function that a class defines itself, unless a framework does."""
    function = vars(base).get(name)
    function = getattr(function, "__func__", function)
    if not isinstance(function, FunctionType) or function.__module__.startswith(FRAMEWORKS):
        return None
    return function


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
