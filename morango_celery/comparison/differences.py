"""Rows that differ, as a report has them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence

from morango_celery.comparison.report import Difference
from morango_celery.comparison.results import Pair
from morango_celery.comparison.tables import Table

MAX_EXAMPLES = 100
"""Largest number of differing rows that a report names."""


class Found:
    """Rows that differ: their number, and the first ones."""

    def __init__(self, show_values: bool) -> None:
        self.undocumented = 0
        self.documented: Counter[str] = Counter()
        self._show_values = show_values
        self._examples: list[Difference] = []
        self._documented_examples: list[Difference] = []

    def add(self, pair: Pair, columns: Sequence[str], explained: str | None) -> None:
        if explained is None:
            self.undocumented += 1
        else:
            self.documented[explained] += 1
        examples = self._examples if explained is None else self._documented_examples
        if len(examples) < MAX_EXAMPLES:
            examples.append(_difference(pair, columns, explained, show_values=self._show_values))

    def first(self) -> list[Difference]:
        """Return some differences, undocumented ones before others."""
        return [*self._examples, *self._documented_examples][:MAX_EXAMPLES]


def differing_columns(table: Table, pair: Pair) -> list[str] | None:
    """Return the columns that differ; empty where one side has no such row; None where nothing differs."""
    if pair.morango is None or pair.ours is None:
        return []
    hashes = itertools.zip_longest(pair.morango.hashes.split(","), pair.ours.hashes.split(","))
    return [name for name, (one, other) in zip(table.columns, hashes, strict=False) if one != other] or None


def _difference(
    pair: Pair, columns: Sequence[str], documented: str | None, *, show_values: bool
) -> Difference:
    values = None
    if show_values:
        left = [{} if row is None else json.loads(row.detail or "{}") for row in (pair.morango, pair.ours)]
        names = columns or sorted({*left[0], *left[1]})
        values = {name: (left[0].get(name), left[1].get(name)) for name in names}
    return Difference(
        table=pair.table,
        row=pair.key,
        kind="missing" if pair.ours is None else "additional" if pair.morango is None else "columns",
        columns=list(columns),
        documented=documented,
        values=values,
    )
