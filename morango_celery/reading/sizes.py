"""Sizes of rows. Memory is bounded by bytes, for a number of rows says nothing about them."""

from __future__ import annotations

import re
from typing import Any

from django.db import connection
from django.db.models import Field, Func, IntegerField
from typing_extensions import override

from morango_celery.db.dialect import dialect

THIN_BYTES = 16 * 1024
"""Size of a value up to which it is read along with hundreds of others."""
CHUNK_BYTES = 4 * 1024 * 1024
"""Sum of the sizes of rows on their way, unless a single row has more."""
FEW_ROWS = 10
"""Rows that are read at a time where any of them may be large, and nothing is known before."""

_BOUNDED = re.compile(
    r"uuid|char\(\d{1,4}\)|(small|big)?(int|integer|serial)( unsigned)?|bool(ean)?|timestamp.*|date(time)?"
    r"|time( .*)?|double precision|real|interval|inet|numeric.*|decimal.*|varchar\(\d{1,4}\)"
)
_MEASURED_AS_THEY_ARE = ("text", "varchar", "char", "bytea")


class StoredBytes(Func):
    """Length of a text in bytes. PostgreSQL knows it without reading a text that is stored apart."""

    function = "octet_length"
    output_field = IntegerField()

    @override
    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # octet_length() is of SQLite 3.43; the cast is made in SQLite, and nothing but the number gets out
        return self.as_sql(compiler, connection, template="length(CAST(%(expressions)s AS BLOB))", **context)


def is_unbounded(field: Field[Any, Any]) -> bool:
    """Return True if a column may hold as much as anybody likes."""
    kind = field.db_type(connection)
    return kind is not None and not _BOUNDED.fullmatch(kind)


def bytes_of(name: str, field: Field[Any, Any]) -> str:
    """Return the SQL for the length of an unbounded column on PostgreSQL.

    :param name: an SQL expression for the column
    """
    kind = field.db_type(connection) or ""
    is_text = kind.startswith(_MEASURED_AS_THEY_ARE)
    return f"octet_length({name})" if is_text else f"octet_length(({name})::text)"


def rows_at_a_time(rows: int, *, any_may_be_large: bool) -> int:
    """Return how many rows to read at a time, if up to `rows` would do.

    SQLite is read in this process: its memory doesn't depend on how many come at a time.
    """
    if dialect().runs_in_process:
        return 1
    return min(rows, FEW_ROWS) if any_may_be_large else rows
