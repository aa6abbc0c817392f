"""Conditions and orders by partition prefixes, as many as there may be, within one statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import groupby
from operator import or_
from os.path import commonprefix
from typing import Any

from django.db.models import BooleanField, Case, F, IntegerField, Q, TextField, Value, When
from django.db.models.expressions import Expression, OrderBy
from django.db.models.functions import Collate
from typing_extensions import override

from morango_celery.db.dialect import dialect
from morango_celery.upstream import PRIMARY_PARTITION_LENGTH

FEW = 20
"""Prefixes that are compared one by one, so that PostgreSQL can use its index of partitions. Each one more
takes its planner 0.07 ms for every statement, and each row is compared with all."""


def starts_with_any(field: str, prefixes: Sequence[str]) -> Q:
    """Return the condition that `field` begins with one of the prefixes, as Morango's own queries compare.

    :param prefixes: from `outermost`
    Cost: a row is looked up in a hash table, for any number of prefixes beyond `FEW`.
    """
    if len(prefixes) <= FEW:
        return _compared(field, prefixes)
    found = Q(_IsFound(field, prefixes))
    around = few_around(prefixes)
    return _compared(field, around) & found if dialect().searches_prefixes and around != [""] else found


def few_around(prefixes: Sequence[str]) -> list[str]:
    """Return no more than `FEW` prefixes that cover all partitions of `prefixes`.

    :param prefixes: from `outermost`
    :returns: these themselves if they are few, else their facilities' common beginnings; `[""]` for all
    """
    if len(prefixes) <= FEW:
        return list(prefixes)
    groups = [
        commonprefix(list(same))  # noqa: RUF071  (texts, no paths)
        for _, same in groupby(prefixes, lambda prefix: prefix[:PRIMARY_PARTITION_LENGTH])
    ]
    return groups if len(groups) <= FEW else [""]


def by_prefix(field: str, prefixes: Sequence[str], *, descending: bool = False) -> OrderBy:
    """Return the order of rows by the prefix that they begin with.

    :param prefixes: from `outermost`
    """
    if dialect().searches_prefixes:
        return OrderBy(Collate(_Found(field, prefixes), "C"), descending=descending)
    if all(_folded(prefix) == prefix for prefix in prefixes):
        return OrderBy(_Found(field, prefixes), descending=descending)
    # Those that differ in case only take the same rows; whichever comes first has them
    ordered = reversed(prefixes) if descending else prefixes
    places = (
        When(**{f"{field}__startswith": prefix}, then=Value(place)) for place, prefix in enumerate(ordered)
    )
    return OrderBy(Case(*places, output_field=IntegerField()))


def outermost(prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes in order, without those that lie within another."""
    found: list[str] = []
    for prefix in sorted(prefixes):
        if not (found and prefix.startswith(found[-1])):
            found.append(prefix)
    return found


def _compared(field: str, prefixes: Iterable[str]) -> Q:
    return reduce(or_, (Q(**{f"{field}__startswith": prefix}) if prefix else Q() for prefix in prefixes))


def _folded(text: str) -> str:
    """SQLite's LIKE takes the letters of ASCII for the same in both cases, and no others."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


class _Found(Expression):
    """Prefix that a text begins with, or NULL; in lower case where the database ignores case."""

    def __init__(self, field: str, prefixes: Sequence[str], output_field: Any = None) -> None:
        super().__init__(output_field=output_field or TextField())
        self.text: Any = F(field)
        self.prefixes = tuple(prefixes)

    @override
    def get_source_expressions(self) -> list[Any]:
        return [self.text]

    @override
    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        (self.text,) = exprs

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        return self._sql(compiler, "left({text}, {length})", "json_array_elements_text", self.prefixes)

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        folded = list(dict.fromkeys(map(_folded, self.prefixes)))
        return self._sql(compiler, "lower(substr({text}, 1, {length}))", "json_each", folded)

    def _sql(
        self, compiler: Any, beginning: str, elements: str, prefixes: Sequence[str]
    ) -> tuple[str, list[Any]]:
        """Look the beginnings up in a list for each length that prefixes have.

        :param beginning: the expression for one
        :param elements: the function that makes rows of a JSON list
        """
        text, text_parameters = compiler.compile(self.text)
        cases, parameters = "", []
        for length, same in groupby(sorted(prefixes, key=len), len):
            begins = beginning.format(text=text, length=length)
            cases += f" WHEN {begins} IN (SELECT value FROM {elements}(%s)) THEN {begins}"  # noqa: S608  (our own names)
            document = json.dumps(list(same), ensure_ascii=False)
            parameters += [*text_parameters, document, *text_parameters]
        return f"CASE{cases} END", parameters


class _IsFound(_Found):
    """Condition that a text begins with one of the prefixes."""

    def __init__(self, field: str, prefixes: Sequence[str]) -> None:
        super().__init__(field, prefixes, BooleanField())

    @override
    def _sql(self, *arguments: Any) -> tuple[str, list[Any]]:
        found, parameters = super()._sql(*arguments)
        return f"{found} IS NOT NULL", parameters
