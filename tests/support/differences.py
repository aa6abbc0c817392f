"""Differences between Morango's database and ours, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

WHOLE_ROW = "(row)"
"""The column of a difference in which one database lacks the row."""

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Difference:
    """One value that the two databases don't share; None where one lacks the row."""

    table: str
    key: str
    column: str
    morango: Any
    ours: Any

    @override
    def __str__(self) -> str:
        return f"{self.table} {self.key} {self.column}: {_short(self.morango)} != {_short(self.ours)}"


def differences(morango: Tables, ours: Tables) -> Iterator[Difference]:
    """Yield every value that differs, tables and rows that only one database has included."""
    for table in sorted({*morango, *ours}):
        left, right = morango.get(table, {}), ours.get(table, {})
        for key in sorted({*left, *right}):
            if key not in left or key not in right:
                yield Difference(table, key, WHOLE_ROW, left.get(key), right.get(key))
                continue
            for column in sorted({*left[key], *right[key]}):
                ours_value, morango_value = right[key].get(column), left[key].get(column)
                if ours_value != morango_value:
                    yield Difference(table, key, column, morango_value, ours_value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
