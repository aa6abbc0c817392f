"""Syncs of parts of a school: under filters of many prefixes, nearly each of them a learner's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from morango.models.certificates import Filter

from bench.data import School, StoreRow
from bench.scenarios import PREFIXES, under_prefixes


def rows(number: int, records: int) -> Iterator[StoreRow]:
    """Yield a unit, a learner for each other prefix, and the learners' work."""
    unit, *learners = made = list(_first_of_each(number))
    yield unit
    yield from learners
    school = School(0)
    for attempt in range(records - len(made)):
        yield school.attempt(attempt, learners[attempt % len(learners)].id, None)


def sync_filter(number: int) -> Filter:
    return Filter("\n".join(row.partition for row in _first_of_each(number)))


def _first_of_each(number: int) -> Iterator[StoreRow]:
    school = School(0)
    unit = school.unit(0, None)
    return chain([unit], (school.learner(learner, unit.id) for learner in range(number - 1)))


CASES: dict[str, Callable[[int], Iterator[StoreRow]]] = {
    under_prefixes(number): partial(rows, number) for number in PREFIXES
}
FILTERS: dict[str, Callable[[], Filter]] = {
    name: partial(sync_filter, number)
    for number in PREFIXES
    for name in (under_prefixes(number), f"edited_{under_prefixes(number)}")
}
