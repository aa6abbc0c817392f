"""Tables by qualified names, as Django's users write them on PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.db import connection, connections

OTHER_SCHEMA = "Filing Room"
"""A schema in which PostgreSQL finds no table without being told."""


def elsewhere(table: str) -> str:
    """Return a name that has its quotes already, so that Django adds none; on PostgreSQL with its schema.

    To SQLite a table that has indexes, or that others refer to, can't be named with one.
    """
    return f'"{OTHER_SCHEMA}"."{table}"' if connection.vendor == "postgresql" else f'"{table}"'


def create_other_schema(using: str, **kwargs: Any) -> None:
    """Make room for such tables; a receiver of ``pre_migrate``."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{OTHER_SCHEMA}"')
