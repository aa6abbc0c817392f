"""Many small syncs of schools: their records, and the filters under which they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from morango.models.certificates import Filter

from bench.cases import number_of_syncs, syncs_of
from bench.data import StoreRow, school, school_id

SMALLEST_SCHOOL = 100
"""A sync of fewer records has the first of such a school."""

SIZES = (3, 10, 100)


def rows(size: int, records: int) -> Iterator[StoreRow]:
    """Yield the beginnings of as many schools as there are syncs."""
    for number in range(number_of_syncs(syncs_of(size), records)):
        yield from islice(school(max(size, SMALLEST_SCHOOL), number), size)


def filters(case: str, records: int) -> list[Filter]:
    """Return the filter of each sync, those for warming up first."""
    return [Filter(school_id(number)) for number in range(number_of_syncs(case, records))]


CASES: dict[str, Callable[[int], Iterator[StoreRow]]] = {
    syncs_of(size): partial(rows, size) for size in SIZES
}
