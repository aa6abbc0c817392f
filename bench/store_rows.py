"""Store rows into an empty table, as fast as each database takes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db import connection, transaction

if TYPE_CHECKING:
    from bench.data import StoreRow

CHUNK_ROWS = 10_000


@transaction.atomic
def write(rows: Iterable[StoreRow]) -> None:
    """Insert Store rows, in their order, the fast way of each database."""
    from morango.models.core import Store

    from bench.data import COLUMNS
    from morango_celery.db.driver import copy_from
    from morango_celery.stream import chunked

    table, names = Store._meta.db_table, ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        for chunk in chunked(rows, CHUNK_ROWS):
            if connection.vendor == "postgresql":
                lines = io.StringIO()
                csv.writer(lines, quoting=csv.QUOTE_ALL).writerows(chunk)  # unquoted, empty text is NULL
                copy_from(
                    cursor, f"COPY {table} ({names}) FROM STDIN (FORMAT csv)", lines.getvalue().encode()
                )
            else:
                marks = ", ".join(["%s"] * len(COLUMNS))
                cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", chunk)
