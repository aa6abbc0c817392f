"""A server's database after a sync, made comparable with another one's."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.kolibri.compare import Outcome

Row = Mapping[str, Any]
Tables = dict[str, dict[str, dict[str, Any]]]

NOT_THE_SYNCS = {
    "auth_permission": "of each installed app",
    "django_content_type": "the same",
    "morango_syncsession": "random ids, and when each stage was",
    "morango_transfersession": "the same",
    "discovery_networklocation": "Kolibri's libraries, and when the server noted them",
    "jobs": "Kolibri's own chores: random ids, and when they are due",
}
"""Tables that differ between two servers of the same kind, and why."""

NOTIFICATIONS = "notifications_learnerprogressnotification"
USERS = "kolibriauth_facilityuser"


def outcome(
    implementation: str, found: Mapping[str, Any], stable: Mapping[str, Any] | None = None
) -> Outcome:
    """Return the outcome of a server with this snapshot.

    :param stable: the snapshot after its records in error were deserialized once more
    """
    return Outcome(
        implementation=implementation,
        tables=_comparable(found["tables"]),
        again=_comparable(stable["tables"]) if stable else None,
        aborted=None,
        poison={},
        retried=False,
        seconds=0.0,
        models=found["models"],
        clock="1970-01-01T00:00:00+00:00",
    )


def user(tables: Any, username: str) -> dict[str, Any]:
    return next(row for row in tables[USERS].values() if row["username"] == username)


def _comparable(tables: Mapping[str, Mapping[str, Row]]) -> Tables:
    """Return rows without values of chance or of the clock, and with random ids replaced by counters."""
    sessions = sorted(tables["morango_transfersession"].values(), key=lambda row: row["start_timestamp"])
    places = {row["id"]: f"transfer {place}" for place, row in enumerate(sessions, start=1)}
    copied: Tables = {
        table: {key: dict(row) for key, row in rows.items()}
        for table, rows in tables.items()
        if table not in NOT_THE_SYNCS
    }
    for row in copied["morango_store"].values():
        row["last_transfer_session_id"] = places.get(row["last_transfer_session_id"])
    for row in copied["morango_instanceidmodel"].values():
        del row["db_path"]
    if NOTIFICATIONS in tables:  # SQLite has them in a file of their own
        # Their numbers are in the order in which they were made, which is that of the logs' rows
        alike = Counter(
            json.dumps({**row, "id": None}, sort_keys=True) for row in tables[NOTIFICATIONS].values()
        )
        copied[NOTIFICATIONS] = {text: {"times": times} for text, times in alike.items()}
    return copied
