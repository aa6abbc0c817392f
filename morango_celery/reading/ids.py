"""Many ids, as PostgreSQL takes them at once."""

from __future__ import annotations

from collections.abc import Iterable


def id_array(ids: Iterable[str]) -> str:
    """Return the text of a ``uuid[]``.

    It is one constant. The driver would quote, and the server parse and plan, each item of a list.

    :param ids: 32 hex digits each
    """
    return f"{{{','.join(ids)}}}"
