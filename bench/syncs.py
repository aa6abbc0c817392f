"""Many small syncs of schools: the waiting records under each filter, and the server's older rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from morango.models.certificates import Filter
from morango.models.core import Store

from bench.cases import DELETIONS, ON_A_SERVER, ONE_FACILITY, WARM_UP_SYNCS, number_of_syncs, syncs_of
from bench.data import StoreRow, school, school_id
from bench.sql import deserialize
from bench.store_rows import write
from morango_celery import serialize_into_store
from worker.school.models import PROFILE

SMALLEST_SCHOOL = 100
"""A sync of fewer records has the first of such a school."""


def filters(case: str, records: int) -> list[Filter]:
    """Return the filter of each sync, those for warming up first."""
    number = number_of_syncs(case, records)
    if case.endswith(ONE_FACILITY):
        warming_up = [Filter(school_id(1 + sync)) for sync in range(WARM_UP_SYNCS)]
        return warming_up + [Filter(school_id(0))] * (number - WARM_UP_SYNCS)
    return [Filter(school_id(sync)) for sync in range(number)]


def beginnings(size: int, syncs: int) -> Iterator[StoreRow]:
    """Yield the first so many rows of each of several schools."""
    for number in range(syncs):
        yield from islice(school(max(size, SMALLEST_SCHOOL), number), size)


def _several(case: str, size: int, records: int) -> None:
    """Let as many schools wait as there are syncs."""
    write(beginnings(size, number_of_syncs(case, records)))


def _one_facility(case: str, size: int, records: int) -> None:
    """Fill the Store with the waiting pushes of all devices of a school, and small schools for warming up."""
    for number in range(1 + WARM_UP_SYNCS):
        # Of two processes of Morango's that do so for the first time at once, one fails
        serialize_into_store(PROFILE, filter=Filter(school_id(number)))
    write(school(records))
    for number in range(WARM_UP_SYNCS):
        write(school(SMALLEST_SCHOOL, 1 + number))


def _deletions(case: str, size: int, records: int) -> None:
    """Let deletions of attempts that nothing refers to wait; all else is deserialized."""
    for number in range(number_of_syncs(case, records)):
        write(school(SMALLEST_SCHOOL, number))
    deserialize(PROFILE)
    last = SMALLEST_SCHOOL * 15 // 100  # the others have feedback
    ids = [f"attempt-{last + attempt}" for attempt in range(size)]
    Store.objects.filter(source_id__in=ids).update(deleted=True, dirty_bit=True)


def _on_a_server(case: str, size: int, records: int) -> None:
    """Let schools wait that are new to a server with so many app rows."""
    syncs = number_of_syncs(case, records)
    write(school(records, syncs))
    deserialize(PROFILE)
    write(beginnings(size, syncs))


CASES: dict[str, Callable[[int], None]] = {
    name: partial(fill, name, size)
    for name, fill, size in (
        (syncs_of(3), _several, 3),
        (syncs_of(10), _several, 10),
        (syncs_of(100), _several, 100),
        (syncs_of(5, DELETIONS), _deletions, 5),
        (syncs_of(600, ONE_FACILITY), _one_facility, 600),
        (syncs_of(10, ON_A_SERVER), _on_a_server, 10),
    )
}
