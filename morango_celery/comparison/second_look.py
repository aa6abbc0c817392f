"""Second look at a few differing rows that no rule explains, by Morango's function on their records alone.

It tells records that failed with Morango only because of their order, and rows in which Morango differs from
itself, such as values that a model's code takes from the clock or draws at random.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from morango_celery.comparison.documented import Fate
from morango_celery.comparison.report import Request
from morango_celery.comparison.results import Pair, Results
from morango_celery.comparison.rows import Reader
from morango_celery.comparison.selection import records_of, select_alone
from morango_celery.comparison.sides import rolled_back, run_morango
from morango_celery.comparison.tables import Table
from morango_celery.upstream import morangos_function

MAX_RECORDS = 1000
"""Largest number of records, or rows, that are looked at again."""
MAX_ROUNDS = 5
"""Largest number of times that Morango's function is repeated for records that failed for their order."""

RowKey = tuple[str, str]
"""Name of a table, and the key of a row in it."""


def record_id(key: str) -> str:
    """Return the id of the record that a row belongs to, where it has one: the first part of its key."""
    return key.split("/")[0]


def equal_after_retries(
    request: Request, results: Results, rows: Reader, store: Table, tables: Iterable[Table]
) -> set[RowKey]:
    """Let Morango try the records again that failed only with it; return the rows that equal ours then.

    Call it with Morango's results in the open savepoint; it rolls back what it does.
    """
    failed: set[str] = set()
    for pair in results.differing(store.name):
        morango, ours = Fate.of(pair.morango), Fate.of(pair.ours)
        if morango and ours and morango.is_dirty and morango.path and not ours.is_dirty:
            failed.add(pair.key)
            if len(failed) > MAX_RECORDS:
                return set()
    if not failed:
        return set()
    with rolled_back():
        select_alone(request, failed)
        waiting = records_of(Request(request.profile, request.sync_filter)).filter(dirty_bit=True)
        before = waiting.count()
        for _ in range(MAX_ROUNDS):
            morangos_function(request.profile, request.sync_filter)
            now = waiting.count()
            if now == before:
                break
            before = now
        found = set()
        for table in tables:
            pairs = {
                pair.key: pair for pair in results.differing(table.name) if record_id(pair.key) in failed
            }
            for row in rows.at(table, list(pairs)):
                ours_row = pairs[row.key].ours
                if ours_row is not None and ours_row.hashes == row.hashes:
                    found.add((table.name, row.key))
    return found


def varying(request: Request, rows: Reader, suspects: Collection[tuple[Pair, Table]]) -> set[RowKey]:
    """Return the rows in which two results of Morango's function differ, on the same records.

    :param suspects: rows that differ between Morango and us, at most `MAX_RECORDS`
    """
    first, second = (dict(_once_more(request, rows, suspects)) for _ in range(2))
    return {key for key, hashes in first.items() if second.get(key) != hashes}


def _once_more(
    request: Request, rows: Reader, suspects: Collection[tuple[Pair, Table]]
) -> Iterator[tuple[RowKey, str]]:
    """Yield the hashes of the suspects after Morango's function on their records and the targets of these."""
    keys: dict[Table, list[str]] = {}
    for pair, table in suspects:
        keys.setdefault(table, []).append(pair.key)
    with rolled_back():
        select_alone(request, {record_id(pair.key) for pair, _ in suspects})
        if run_morango(request).figures.failed_with is None:
            for table, wanted in keys.items():
                for row in rows.at(table, wanted):
                    yield (table.name, row.key), row.hashes
