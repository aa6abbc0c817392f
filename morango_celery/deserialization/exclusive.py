"""Exclusive models: their ``save()`` reads or writes other rows, and so can't run twice at a time.

Their records are saved one by one, and all batches that have any of them wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache, lru_cache

from django.db.models import Model

from morango_celery.conf import settings

logger = logging.getLogger(__name__)

KNOWN: Mapping[str, str] = {
    "mptt.models.MPTTModel": "its save() asks for the highest tree_id, and makes room in other rows",
    "ordered_model.models.OrderedModelBase": "its save() asks for the highest order",
}
"""Reason why a class is exclusive, by the class's name: it need not be installed."""

_seen_writing: set[type[Model]] = set()
"""Models with a ``save()`` that was seen to update other rows, in this process."""


def is_exclusive(model: type[Model]) -> bool:
    """Return True if the settings say so of a model or its table, or if it is recognized."""
    return bool(exclusive_among((model,)))


def exclusive_among(models: tuple[type[Model], ...]) -> frozenset[type[Model]]:
    """Return the exclusive ones of some models. They are worked out anew when settings or recognized models
    change."""
    return _exclusive_among(models, frozenset(settings.EXCLUSIVE_MODELS), frozenset(_seen_writing))


@lru_cache(maxsize=256)
def _exclusive_among(
    models: tuple[type[Model], ...], named: frozenset[str], recognized: frozenset[type[Model]]
) -> frozenset[type[Model]]:
    found = set()
    for model in models:
        concrete = model._meta.concrete_model or model
        is_named = not named.isdisjoint((model._meta.label, concrete._meta.label))
        if is_named or model in recognized or reason(model) is not None:
            found.add(model)
    return frozenset(found)


@cache
def reason(model: type[Model]) -> str | None:
    """Return the reason why a model's class is known as exclusive; None if it isn't."""
    for base in model.__mro__:
        name = f"{base.__module__}.{base.__qualname__}"
        if name in KNOWN:
            return f"it is a {base.__name__}: {KNOWN[name]}"
    return None


def recognize(model: type[Model], statement: str) -> None:
    """Treat a model as exclusive from now on, in this process, and log the statement of its ``save()``."""
    _seen_writing.add(model)
    logger.warning(
        "%s.save() updates other rows (%s ...). Its records are saved one by one from now on, by one process "
        "at a time. Name it in MORANGO_CELERY['EXCLUSIVE_MODELS'], so that they are planned like that.",
        model._meta.label,
        " ".join(statement.split()[:2]),
    )
