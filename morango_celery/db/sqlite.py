"""SQLite's abilities and forms."""

from __future__ import annotations

import json
from collections.abc import Iterable


class SQLite:
    """Dialect of SQLite."""

    has_one_writer = True
    runs_in_process = True
    ends_transactions_itself = True
    has_sqlstates = False
    tells_time = False
    has_timeouts = False
    has_advisory_locks = False
    has_sequences = False
    has_arrays = False
    reads_json = False
    returns_updated_rows = False
    marks_written_rows = False
    checks_constraints_early = False
    searches_prefixes = False
    builds_indexes_concurrently = False
    stores_text = True
    id_list = "IN (SELECT value FROM json_each(%s))"
    elements = "json_each"
    is_same = "IS"
    like_escape = r" ESCAPE '\'"

    def ids(self, ids: Iterable[str]) -> str:
        return json.dumps(list(ids))

    def hex_digits(self, column: str) -> str:
        return column

    def byte_length(self, column: str) -> str:
        return f"length(CAST({column} AS BLOB))"
