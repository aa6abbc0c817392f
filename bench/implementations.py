"""The implementations of a comparison: each does the same to a prepared database, its own way.

An implementation is a context, entered outside of the time that is measured. It imports its modules itself:
hosts differ in the packages that they have, and memory is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from itertools import product
from typing import Any

from morango.models.certificates import Filter

from bench.cases import WARM_UP_SYNCS, is_of_syncs, size_of
from bench.measurement import Order
from bench.profiles import PROFILES
from bench.values import KINDS, OPERATIONS, SIZES, implementation_name
from bench.work import Work, timed


@contextmanager
def morango(order: Order) -> Iterator[Work]:
    """Morango's own function, unmodified, with the isolation that it gives itself; and where the host has a
    cache for the time of a sync, as Kolibri has, with that."""
    function = import_module("morango.sync.operations")._deserialize_from_store
    import_module("bench.stage").use_hosts_cache(order.models)
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def ours(order: Order) -> Iterator[Work]:
    """Yield our replacement for it in this process, with ledger, locks and all."""
    function: Callable[..., Any] = import_module("morango_celery").deserialize_from_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def morango_serializing(order: Order) -> Iterator[Work]:
    """Morango's serialization, unmodified."""
    function = import_module("morango.sync.operations")._serialize_into_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def serializing(order: Order) -> Iterator[Work]:
    """Yield our replacement for it."""
    function: Callable[..., Any] = import_module("morango_celery").serialize_into_store
    yield timed(lambda sync_filter: function(PROFILES[order.models], filter=sync_filter))


@contextmanager
def sql(order: Order) -> Iterator[Work]:
    """Yield the server's work alone; see ``bench.sql``."""
    function: Callable[..., Any] = import_module("bench.sql").deserialize
    yield timed(lambda _: function(PROFILES[order.models]))


def morango_stage(order: Order) -> AbstractContextManager[Work]:
    """Return Morango's whole stage, the baseline of everything that merges local edits first; see
    ``bench.stage``."""
    implementation: AbstractContextManager[Work] = import_module("bench.stage").morango(order)
    return implementation


def ours_stage(order: Order) -> AbstractContextManager[Work]:
    """Return our whole stage in this process; see ``bench.stage``."""
    implementation: AbstractContextManager[Work] = import_module("bench.stage").in_process(order)
    return implementation


def fleet(order: Order) -> AbstractContextManager[Work]:
    """Return workers that serve many syncs at once; see ``bench.fleet``."""
    implementation: AbstractContextManager[Work] = import_module("bench.fleet").fleet(order)
    return implementation


def morango_fleet(order: Order) -> AbstractContextManager[Work]:
    """Return Morango's stage in several processes, for many syncs at once; see ``bench.fleet``."""
    implementation: AbstractContextManager[Work] = import_module("bench.fleet").morango_fleet(order)
    return implementation


def tasks(order: Order) -> AbstractContextManager[Work]:
    """Return the workers' share of a sync, in this process; see ``bench.workers``."""
    implementation: AbstractContextManager[Work] = import_module("bench.workers").tasks(order)
    return implementation


def large_alone(order: Order) -> AbstractContextManager[Work]:
    """Return a large run; see ``bench.facility``."""
    implementation: AbstractContextManager[Work] = import_module("bench.facility").large_alone(order)
    return implementation


def large_and_small(order: Order) -> AbstractContextManager[Work]:
    """Return a large run beside small ones of its facility; see ``bench.facility``."""
    implementation: AbstractContextManager[Work] = import_module("bench.facility").large_and_small(order)
    return implementation


def celery(order: Order) -> AbstractContextManager[Work]:
    """Return workers; see ``bench.workers``."""
    implementation: AbstractContextManager[Work] = import_module("bench.workers").celery(order)
    return implementation


def producer(order: Order) -> AbstractContextManager[Work]:
    """Return the producer alone; see ``bench.producer``."""
    implementation: AbstractContextManager[Work] = import_module("bench.producer").producer(order)
    return implementation


def oplog(order: Order) -> AbstractContextManager[Work]:
    """Return a log of objects, ingested in bulk; see ``bench.oplog``."""
    implementation: AbstractContextManager[Work] = import_module("bench.oplog").oplog(order)
    return implementation


def one_by_one(order: Order) -> AbstractContextManager[Work]:
    """Return a log of objects, ingested one by one; see ``bench.oplog``."""
    implementation: AbstractContextManager[Work] = import_module("bench.oplog").one_by_one(order)
    return implementation


def messages(order: Order) -> AbstractContextManager[Work]:
    """Return messages with references to their ids; see ``bench.payloads``."""
    implementation: AbstractContextManager[Work] = import_module("bench.payloads").messages(order)
    return implementation


def messages_inline(order: Order) -> AbstractContextManager[Work]:
    """Batches sent with their ids; see ``bench.payloads``."""
    implementation: AbstractContextManager[Work] = import_module("bench.payloads").messages_inline(order)
    return implementation


def values(order: Order) -> AbstractContextManager[Work]:
    """Values stored or read; see ``bench.payloads``."""
    implementation: AbstractContextManager[Work] = import_module("bench.payloads").values(order)
    return implementation


IMPLEMENTATIONS: dict[str, Callable[[Order], AbstractContextManager[Work]]] = {
    "morango": morango,
    "ours": ours,
    "morango-serializing": morango_serializing,
    "serializing": serializing,
    "sql": sql,
    "morango-stage": morango_stage,
    "ours-stage": ours_stage,
    "fleet": fleet,
    "morango-fleet": morango_fleet,
    "tasks": tasks,
    "large-alone": large_alone,
    "large-and-small": large_and_small,
    "celery": celery,
    "producer": producer,
    "oplog": oplog,
    "one-by-one": one_by_one,
    "messages": messages,
    "messages-inline": messages_inline,
    **{
        implementation_name(operation, size, f"{maker}-{kind}"): values
        for operation, size, maker, kind in product(OPERATIONS, SIZES, ("payloads", "pynenc"), KINDS)
    },
}


AT_ONCE = ("fleet", "morango-fleet")
"""The implementations that serve all syncs of a case together."""


def syncs(order: Order) -> tuple[list[Filter | None], int]:
    """Return the filters of the syncs that are measured one by one, and how many of them only warm up."""
    if order.implementation in AT_ONCE:
        return [None], 0
    if is_of_syncs(order.case):
        return [*all_syncs(order)], WARM_UP_SYNCS
    if order.models == "kolibri":  # which the following modules can't be imported with
        return [None], 0
    if order.case in (filters := import_module("bench.prefixes").FILTERS):
        return [filters[order.case]()], 0
    if order.case == "schools":
        data = import_module("bench.data")
        return [Filter(data.school_id(number)) for number in range(data.SYNCS)], data.WARM_UP_SYNCS
    return [None], 0


def all_syncs(order: Order) -> list[Filter]:
    """Return the filters of a case of many small syncs, those that only warm up first."""
    module = import_module("bench.kolibri_syncs" if order.models == "kolibri" else "bench.syncs")
    filters: list[Filter] = module.filters(order.case, order.records)
    return filters


def exact_records(order: Order) -> int:
    """Return how many records a sync of the case has, of which the order says about how many."""
    if is_of_syncs(order.case):
        return size_of(order.case)
    if order.case == "few_edits":
        few: int = import_module("bench.edits").FEW
        return few
    if order.case != "kolibri":
        return order.records
    number: int = import_module("bench.kolibri").exact_records(order.records)
    return number
