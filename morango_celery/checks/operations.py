"""System checks of Morango's operations and their order: the first one that takes a stage has it."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (as Django names it)
from morango.sync.operations import (
    ProducerDeserializeOperation,
    ReceiverDeserializeOperation,
    SerializeOperation,
)

from morango_celery.conf import COMPARE, problems, settings
from morango_celery.operations import DeserializeOperation, StreamingSerializeOperation
from morango_celery.upstream import SETTINGS, do_import

DESERIALIZE = "MORANGO_DESERIALIZE_OPERATIONS"
SERIALIZE = "MORANGO_SERIALIZE_OPERATIONS"
OURS = "morango_celery.operations:DeserializeOperation"

ASKED_BY: set[str] = set()
"""Other projects' operations, as settings name them, that call ours. A plug-in adds to it."""


@register("morango_celery")
def check_deserialize_operations(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that syncs reach `DeserializeOperation`, and that Morango's own operation comes after it."""
    found = _operations(DESERIALIZE)
    if isinstance(found, Error):
        return [found]
    messages = _misplaced(DESERIALIZE, found, DeserializeOperation, ReceiverDeserializeOperation)
    if _first(found, DeserializeOperation) is None and ASKED_BY.isdisjoint(name for name, _ in found):
        messages.append(
            Warning(
                f"{DESERIALIZE} has no {OURS!r}: syncs are deserialized by others, in their requests.",
                hint=f"Put {OURS!r} first in {DESERIALIZE}; or, if only manage.py deserialize and the Python "
                "API are to be used, or another operation calls it, silence this check.",
                id="morango_celery.W001",
            )
        )
    if _compares() and _first(found, ReceiverDeserializeOperation) is None:
        theirs = "morango.sync.operations:ReceiverDeserializeOperation"
        messages.append(
            Error(
                f"MORANGO_CELERY['MODE'] is 'compare', and {DESERIALIZE} has no {theirs!r}: nobody "
                "deserializes syncs.",
                hint=f"Put Morango's own operations back into {DESERIALIZE}, after this app's; or choose "
                "another mode. If another project's operation deserializes, silence this check.",
                id="morango_celery.E011",
            )
        )
    if _first(found, ProducerDeserializeOperation) is None:
        theirs = "morango.sync.operations:ProducerDeserializeOperation"
        messages.append(
            Error(
                f"{DESERIALIZE} has no {theirs!r}: a sync in which this side sends fails at its last stage.",
                hint=f"Put Morango's own operations back into {DESERIALIZE}, after this app's.",
                id="morango_celery.E005",
            )
        )
    return messages


@register("morango_celery")
def check_serialize_operations(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that `StreamingSerializeOperation`, which is optional, comes first if it is used."""
    found = _operations(SERIALIZE)
    if isinstance(found, Error):
        return [found]
    return _misplaced(SERIALIZE, found, StreamingSerializeOperation, SerializeOperation)


def _compares() -> bool:
    return not problems() and settings.MODE == COMPARE


Operations = list[tuple[str, type]]
"""Entries of a setting, in order: the text, and the class that it names."""


def _operations(setting: str) -> Operations | Error:
    """Return a setting's entries, or an error if one of them can't be used."""
    names = getattr(SETTINGS, setting)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return Error(
            f"{setting} must be a list of texts, not {names!r}.",
            hint=f'Write each operation as "module:Class", such as {OURS!r}.',
            id="morango_celery.E003",
        )
    found = []
    for name in names:
        try:
            operation = do_import(name)
        except (ImportError, AttributeError, ValueError) as error:
            return Error(
                f"{setting} names {name!r}, which can't be imported: {error}.",
                hint='Write it as "module:Class", and see that its package is installed.',
                id="morango_celery.E003",
            )
        found.append((name, operation if isinstance(operation, type) else type(operation)))
    return found


def _misplaced(setting: str, found: Operations, ours: type, theirs: type) -> list[CheckMessage]:
    our_place, their_place = _first(found, ours), _first(found, theirs)
    if our_place is None or their_place is None or our_place < their_place:
        return []
    name, taker = found[our_place][0], found[their_place][0]
    return [
        Error(
            f"{setting} has {name!r} after {taker!r}, which takes the stage first: it is never asked.",
            hint=f"Put {name!r} first in {setting}.",
            id="morango_celery.E004",
        )
    ]


def _first(found: Operations, wanted: type) -> int | None:
    return next((place for place, (_, operation) in enumerate(found) if issubclass(operation, wanted)), None)
