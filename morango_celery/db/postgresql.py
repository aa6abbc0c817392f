"""PostgreSQL's abilities and forms."""

from __future__ import annotations

from collections.abc import Iterable


class PostgreSQL:
    """Dialect of PostgreSQL."""

    has_one_writer = False
    runs_in_process = False
    ends_transactions_itself = False
    has_sqlstates = True
    tells_time = True
    has_timeouts = True
    has_advisory_locks = True
    has_sequences = True
    has_arrays = True
    reads_json = True
    returns_updated_rows = True
    marks_written_rows = True
    checks_constraints_early = True
    searches_prefixes = True
    builds_indexes_concurrently = True
    stores_text = False
    id_list = "= ANY(%s::uuid[])"
    elements = "json_array_elements_text"
    is_same = "IS NOT DISTINCT FROM"
    like_escape = ""

    def ids(self, ids: Iterable[str]) -> str:
        """Return the text of a ``uuid[]``.

        It is one constant, where the driver would quote and the server parse and plan each item of a list.
        """
        return f"{{{','.join(ids)}}}"

    def hex_digits(self, column: str) -> str:
        return f"replace({column}::text, '-', '')"

    def byte_length(self, column: str) -> str:
        return f"octet_length({column})"
