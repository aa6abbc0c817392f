"""Tables that have rows: thousands of comparisons look at dozens of tables, most of them empty."""

from __future__ import annotations

from collections.abc import Collection

from django.db import connection


def filled(tables: Collection[str]) -> set[str]:
    """Those that have any, asked in one statement."""
    quoted = {table: connection.ops.quote_name(table) for table in tables}
    questions = [f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {name})" for table, name in quoted.items()]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(questions))
        return {table for (table,) in cursor.fetchall()}
