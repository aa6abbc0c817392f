"""The sides of a comparison: each does the same to a prepared database, its own way.

A side is a context, entered outside of the time that is measured. It imports what it needs itself: hosts
differ in what they have, and memory is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from itertools import product
from typing import Any

from morango.models.certificates import Filter

from bench.measurement import Order
from bench.values import KINDS, OPERATIONS, SIZES
from bench.values import side as value_side
from bench.work import Work, timed

PROFILES = {"school": "school", "kolibri": "facilitydata"}

WARM_UP_SYNCS = 2
"""Of several syncs in one process, so many are not counted: who serves them was not just started."""


@contextmanager
def morango(order: Order) -> Iterator[Work]:
    """Morango's own function, unmodified, with the isolation that it gives itself; and where the host has a
    cache for the time of a sync, as Kolibri has, with that."""
    function = import_module("morango.sync.operations")._deserialize_from_store
    if order.models == "kolibri":
        import_module("kolibri.core.auth.models").dataset_cache.activate()
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def ours(order: Order) -> Iterator[Work]:
    """The replacement for it, in this process: with ledger, locks and all."""
    function: Callable[..., Any] = import_module("morango_celery").deserialize_from_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def morango_serializing(order: Order) -> Iterator[Work]:
    """Morango's serialization, unmodified."""
    function = import_module("morango.sync.operations")._serialize_into_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def serializing(order: Order) -> Iterator[Work]:
    """The replacement for it."""
    function: Callable[..., Any] = import_module("morango_celery").serialize_into_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def sql(order: Order) -> Iterator[Work]:
    """The server alone; see ``bench.sql``."""
    function: Callable[..., Any] = import_module("bench.sql").deserialize
    yield timed(lambda _: function(PROFILES[order.models]))


def celery(order: Order) -> AbstractContextManager[Work]:
    """Workers; see ``bench.workers``."""
    side: AbstractContextManager[Work] = import_module("bench.workers").celery(order)
    return side


def producer(order: Order) -> AbstractContextManager[Work]:
    """The producer alone; see ``bench.producer``."""
    side: AbstractContextManager[Work] = import_module("bench.producer").producer(order)
    return side


def oplog(order: Order) -> AbstractContextManager[Work]:
    """A log of objects in bulk; see ``bench.oplog``."""
    side: AbstractContextManager[Work] = import_module("bench.oplog").oplog(order)
    return side


def one_by_one(order: Order) -> AbstractContextManager[Work]:
    """A log of objects, one by one; see ``bench.oplog``."""
    side: AbstractContextManager[Work] = import_module("bench.oplog").one_by_one(order)
    return side


def messages(order: Order) -> AbstractContextManager[Work]:
    """Batches sent with the hash of their ids; see ``bench.payloads``."""
    side: AbstractContextManager[Work] = import_module("bench.payloads").messages(order)
    return side


def messages_inline(order: Order) -> AbstractContextManager[Work]:
    """Batches sent with their ids; see ``bench.payloads``."""
    side: AbstractContextManager[Work] = import_module("bench.payloads").messages_inline(order)
    return side


def values(order: Order) -> AbstractContextManager[Work]:
    """Values stored or read; see ``bench.payloads``."""
    side: AbstractContextManager[Work] = import_module("bench.payloads").values(order)
    return side


SIDES: dict[str, Callable[[Order], AbstractContextManager[Work]]] = {
    "morango": morango,
    "ours": ours,
    "morango-serializing": morango_serializing,
    "serializing": serializing,
    "sql": sql,
    "celery": celery,
    "producer": producer,
    "oplog": oplog,
    "one-by-one": one_by_one,
    "messages": messages,
    "messages-inline": messages_inline,
    **{
        value_side(operation, size, f"{maker}-{kind}"): values
        for operation, size, maker, kind in product(OPERATIONS, SIZES, ("payloads", "pynenc"), KINDS)
    },
}


def syncs(case: str) -> tuple[list[Filter | None], int]:
    """The filters of the syncs that a case consists of, and how many of them are for warming up."""
    if case in (filters := import_module("bench.prefixes").FILTERS):
        return [filters[case]()], 0
    if case != "schools":
        return [None], 0
    data = import_module("bench.data")
    return [Filter(data.school_id(number)) for number in range(data.SYNCS)], WARM_UP_SYNCS


def exact_records(order: Order) -> int:
    """Of what a case has about so many records of."""
    if order.case == "few_edits":
        few: int = import_module("bench.edits").FEW
        return few
    if order.case != "kolibri":
        return order.records
    number: int = import_module("bench.kolibri").exact_records(order.records)
    return number
