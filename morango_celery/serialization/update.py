"""Operators that make the new text of a Store row, from its app row and its old text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from typing_extensions import override

from morango_celery.reading.jsontext import read_json
from morango_celery.reading.sizes import CHUNK_BYTES
from morango_celery.serialization import sql
from morango_celery.serialization.encoding import encode, encode_rows
from morango_celery.serialization.task import SerializeTask
from morango_celery.stream import FlatMap, Transform, chunked_by_weight


class Sized(Transform[SerializeTask, tuple[SerializeTask, int]]):
    """Operator that gives each row its size as a weight."""

    @override
    def transform(self, item: SerializeTask) -> tuple[SerializeTask, int]:
        return item, item.obj.size


class StoreLookup(FlatMap[list[SerializeTask], list[SerializeTask]]):
    """Operator that looks up the text of each Store row. One query a list, if that isn't large.

    Of a large list one part follows the other, each as much as may be in memory, with a query of its own.
    """

    @override
    def flat_map(self, item: list[SerializeTask]) -> Iterator[list[SerializeTask]]:
        stored = sql.stored([task.obj.id for task in item])
        sized = ((task, task.obj.size + stored.get(task.id, ("", 0))[1]) for task in item)
        for part in chunked_by_weight(sized, len(item), CHUNK_BYTES):
            large = [task.id for task in part if stored.get(task.id, ("", 0))[0] is None]
            texts = sql.stored_whole(large) if large else {}
            for task in part:
                if task.id in stored:
                    text = stored[task.id][0]
                    task.stored = texts[task.id] if text is None else text
            yield part


class StoreUpdate(Transform[list[SerializeTask], list[SerializeTask]]):
    """Operator that makes the JSON of each row: the app row's values, and other fields of the Store row.

    A Store row may hold fields that this version of the model doesn't have; they are kept, for devices
    that do.
    """

    @override
    def transform(self, item: list[SerializeTask]) -> list[SerializeTask]:
        for names, group in groupby(item, attrgetter("obj.names")):
            tasks = list(group)
            for task, text in zip(tasks, _encoded(names, tasks), strict=True):
                task.serialized = text if task.stored is None else _merged(task, task.stored, text)
        return item


def _encoded(names: tuple[Any, ...], tasks: Sequence[SerializeTask]) -> Sequence[str] | Iterator[str]:
    try:
        if all(type(name) is str for name in names):
            return encode_rows(names, [task.obj.values for task in tasks])
        return [encode(dict(zip(names, task.obj.values, strict=True))) for task in tasks]
    except (TypeError, ValueError, RecursionError):
        return map(_blamed, tasks)


def _blamed(task: SerializeTask) -> str:
    try:
        return encode(dict(zip(task.obj.names, task.obj.values, strict=True)))
    except Exception as error:
        error.add_note(f"While {task.model._meta.label} {task.id} was being serialized.")
        raise


def _merged(task: SerializeTask, stored: str, text: str) -> str:
    try:
        held = read_json(stored)
    except (ValueError, RecursionError):
        return text  # nothing that could be read by anyone
    if not isinstance(held, dict) or tuple(held) == task.obj.names:
        return text
    held.update(zip(task.obj.names, task.obj.values, strict=True))
    return encode(held)
