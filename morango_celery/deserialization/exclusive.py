"""Exclusive models: their ``save()`` reads or writes other rows, and so can't run twice at a time.

Their records are saved one by one, and all batches that have any of them wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from django.db.models import Model

from morango_celery.conf import settings
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.log_context import get_logger
from morango_celery.reading.definitions import definition_of

logger = get_logger(__name__)

KNOWN: Mapping[str, str] = {
    "mptt.models.MPTTModel": "its save() asks for the highest tree_id, and makes room in other rows",
    "ordered_model.models.OrderedModelBase": "its save() asks for the highest order",
}
"""Reason why a class is exclusive, by the class's name: it need not be installed."""

_seen_writing: set[type[Model]] = set()
"""Models with a ``save()`` that was seen to update other rows, in this process."""


def is_exclusive(model: type[Model]) -> bool:
    """Return True if the settings say so of a model or its table, or if it is recognized."""
    return bool(exclusive_reasons(model))


def exclusive_reasons(model: type[Model]) -> tuple[Reason, ...]:
    """Return the reasons why a model is exclusive, by itself; none if it isn't."""
    return _reasons(model, frozenset(settings.EXCLUSIVE_MODELS), frozenset(_seen_writing))


def exclusive_among(models: tuple[type[Model], ...]) -> frozenset[type[Model]]:
    """Return the exclusive ones of some models. They are worked out anew when settings or recognized models
    change."""
    return _exclusive_among(models, frozenset(settings.EXCLUSIVE_MODELS), frozenset(_seen_writing))


@lru_cache(maxsize=256)
def _exclusive_among(
    models: tuple[type[Model], ...], named: frozenset[str], recognized: frozenset[type[Model]]
) -> frozenset[type[Model]]:
    return frozenset(model for model in models if _reasons(model, named, recognized))


@lru_cache(maxsize=1_000)
def _reasons(
    model: type[Model], named: frozenset[str], recognized: frozenset[type[Model]]
) -> tuple[Reason, ...]:
    concrete = model._meta.concrete_model or model
    found = [
        Reason(Kind.EXCLUSIVE, f"EXCLUSIVE_MODELS names {label}", subject="EXCLUSIVE_MODELS")
        for label in dict.fromkeys((model._meta.label, concrete._meta.label))
        if label in named
    ]
    if model in recognized:
        found.append(Reason(Kind.SEEN_WRITING, "its save() was seen to update other rows in this process"))
    if (by_class := known_as_exclusive(model)) is not None:
        found.append(by_class)
    return tuple(found)


@cache
def known_as_exclusive(model: type[Model]) -> Reason | None:
    """Return the reason why a model's class is known as exclusive; None if it isn't."""
    for base in model.__mro__:
        name = f"{base.__module__}.{base.__qualname__}"
        if name in KNOWN:
            said = f"it is a {base.__name__}: {KNOWN[name]}"
            return Reason(Kind.EXCLUSIVE, said, (definition_of(base),), base.__name__)
    return None


def recognize(model: type[Model], statement: str) -> None:
    """Treat a model as exclusive from now on, in this process, and log the statement of its ``save()``."""
    _seen_writing.add(model)
    logger.warning(
        "%s.save() updates other rows (%s ...). Its records are saved one by one from now on, by one process "
        "at a time. Name it in MORANGO_CELERY['EXCLUSIVE_MODELS'], so that they are planned like that.",
        model._meta.label,
        " ".join(statement.split()[:2]),
        extra={"model": model._meta.model_name},
    )
