"""Second look at differences that no rule explains: Morango's function is carried out once more.

It shows where Morango differs from itself, as in values that a model's code takes from the clock or draws at
random, and which records failed only because of their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from morango.models.core import Store

from morango_celery.comparison.documented import CHANCE, ORDER, Fate
from morango_celery.comparison.report import Request
from morango_celery.comparison.results import UNTOUCHED, Pair, Results
from morango_celery.comparison.rows import Reader
from morango_celery.comparison.selection import records_of
from morango_celery.comparison.sides import rolled_back, run_morango
from morango_celery.comparison.tables import Table
from morango_celery.upstream import morangos_function

MAX_SUSPECTS = 1000
"""Largest number of differing rows that are looked at again."""
MAX_ROUNDS = 5
"""Largest number of times that Morango's function is repeated for records that failed for their order."""


def look_again(
    request: Request, results: Results, rows: Reader, suspects: Collection[tuple[Pair, Table]]
) -> dict[tuple[str, str], str]:
    """Return the anchor of an explanation by table and row, for suspects that have one.

    Morango's rows of the suspects' tables are replaced in `results`.

    Cost: Morango's function once more, and up to `MAX_ROUNDS` times for the records that it left in error.
    """
    tables = {table.name: table for _, table in suspects}
    explained: dict[tuple[str, str], str] = {}

    def read() -> None:
        for table in tables.values():
            results.forget("morango", table.name)
            results.add("morango", table.name, rows.untouched(table))
            results.add("morango", table.name, rows.written(table))

    with rolled_back():
        if run_morango(request).figures.failed_with is not None:
            return {}
        read()
        for pair in _changed(results, suspects):
            explained[pair.table, pair.key] = CHANCE
        if not any(_failed_with_morango_alone(pair) for pair, _ in suspects):
            return explained
        _repeat_until_settled(lambda: morangos_function(request.profile, request.sync_filter), request)
        read()
        for pair, _ in suspects:
            settled = results.row("morango", pair.table, pair.key)
            if settled is not None and pair.ours is not None and settled.hashes == pair.ours.hashes:
                explained.setdefault((pair.table, pair.key), ORDER)
    return explained


def _changed(results: Results, suspects: Collection[tuple[Pair, Table]]) -> Iterator[Pair]:
    """Yield the suspects of which Morango's second result differs from its first."""
    for pair, _ in suspects:
        now = results.row("morango", pair.table, pair.key)
        hashes = {None if row is None else row.hashes for row in (now, pair.morango)}
        if len(hashes) == 2 and UNTOUCHED not in hashes:
            yield pair


def _failed_with_morango_alone(pair: Pair) -> bool:
    if pair.table != Store._meta.db_table:
        return False
    morango, ours = Fate.of(pair.morango), Fate.of(pair.ours)
    return bool(morango and ours and morango.is_dirty and morango.path and not ours.is_dirty)


def _repeat_until_settled(function: Callable[[], None], request: Request) -> None:
    left = records_of(request).filter(dirty_bit=True)
    before = left.count()
    for _ in range(MAX_ROUNDS):
        function()
        now = left.count()
        if now == before:
            return
        before = now
