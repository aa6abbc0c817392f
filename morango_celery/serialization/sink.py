"""Sink that writes to the Store."""

from __future__ import annotations

from typing_extensions import override

from morango_celery.serialization import sql
from morango_celery.serialization.sql import Saver
from morango_celery.serialization.task import SerializeTask
from morango_celery.stream import Sink


class StoreSink(Sink[list[SerializeTask]]):
    """Writer of Store rows, new ones and changed ones. Two statements for a list of one model.

    Neither counters nor dirty bits are seen to: they are the same for all rows of a query, and one
    statement each (`serialize_into_store`).
    """

    def __init__(self, saver: Saver) -> None:
        self.saver = saver

    @override
    def consume(self, item: list[SerializeTask]) -> None:
        new = [task for task in item if task.stored is None]
        if new:
            sql.insert(new[0].model, new, self.saver)
        if len(new) < len(item):
            sql.update([task for task in item if task.stored is not None], self.saver)
