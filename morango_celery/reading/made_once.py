"""SQL that Django makes once in a process: for queries that differ in values alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any

from django.db import connection
from django.db.models import QuerySet

MOST = 256
"""Texts that are kept. They are of few kinds; prefixes are what there may be any number of."""

_made: dict[Hashable, tuple[str, tuple[Any, ...]]] = {}


def fetch(
    kind: Hashable,
    columns: Sequence[str],
    query: Callable[[Sequence[str]], QuerySet[Any]],
    values: Sequence[str],
) -> list[tuple[Any, ...]]:
    """Return the rows of a query of texts and numbers, as the database has them.

    :param kind: what its SQL depends on, besides the number of values
    :param columns: names of what is selected, in the order in which a row is to have it
    :param query: makes it for any values, of which it treats none in a special way; it is called once for
        each kind and number of values
    :param values: what is compared for equality, or with the beginning of a text
    """
    key = (kind, len(values))
    if key not in _made:
        if len(_made) >= MOST:
            _made.clear()
        _made[key] = query(_stand_ins(len(values))).query.sql_with_params()
    sql, parameters = _made[key]
    found = dict(zip(_stand_ins(len(values)), values, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(sql, [_replaced(parameter, found) for parameter in parameters])
        names = [column[0] for column in cursor.description]  # versions of Django order them differently
        return list(map(itemgetter(*map(names.index, columns)), cursor.fetchall()))


def _stand_ins(number: int) -> list[str]:
    """Return texts that stand for values, in order, none of which is within another, or in anything else."""
    return [f"\ue000{place:06}\ue000" for place in range(number)]


def _replaced(parameter: Any, values: dict[str, str]) -> Any:
    if not isinstance(parameter, str) or not parameter.startswith("\ue000"):
        return parameter
    stand_in, rest = parameter[:8], parameter[8:]
    if not rest:
        return values[stand_in]
    assert rest == "%", parameter  # of LIKE
    return connection.ops.prep_for_like_query(values[stand_in]) + rest
