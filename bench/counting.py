"""Counts of the statements that connections send to the database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)


class Counter:
    """Statements, and commits: those of transactions, and of statements that write without one."""

    def __init__(self) -> None:
        self.statements = 0
        self.commits = 0

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Mapping[str, Any]
    ) -> Any:
        self.statements += 1
        if not context["connection"].in_atomic_block and _WRITES.match(sql):
            self.commits += 1
        return execute(sql, params, many, context)

    def watch(self, connection: Any, **_: Any) -> None:
        """Count this connection's statements from now on, until its process ends."""
        commit = connection.commit

        def counted() -> None:
            self.commits += 1
            commit()

        connection.execute_wrappers.append(self)
        connection.commit = counted


@contextmanager
def counted() -> Iterator[Counter]:
    """Count for the configured connection, and for those that are opened in the block: a run in process has
    several."""
    from django.db import connection
    from django.db.backends.signals import connection_created

    counter = Counter()
    counter.watch(connection)
    connection_created.connect(counter.watch)
    try:
        yield counter
    finally:
        connection_created.disconnect(counter.watch)
        connection.execute_wrappers.remove(counter)
        del connection.commit
