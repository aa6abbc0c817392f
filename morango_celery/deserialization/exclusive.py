"""Exclusive models: their ``save()`` reads or writes other rows, and so can't run twice at a time.

Their records are saved one by one, and all batches that have any of them wait for each other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

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
    concrete = model._meta.concrete_model
    named = settings.EXCLUSIVE_MODELS
    if model._meta.label in named or (concrete is not None and concrete._meta.label in named):
        return True
    return model in _seen_writing or reason(model) is not None


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
