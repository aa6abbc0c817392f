"""Kolibri's 28 models: the recorded facility of ``tests/kolibri``, over and over, each time another one."""

from __future__ import annotations

import hashlib
import json
import re
import uuid

from kolibri.core.auth.models import FacilityDataset
from morango.models.core import SyncableModel

from tests.kolibri.load import load
from tests.kolibri.records import Recording, Row, read

RECORDING = "small"
UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


def facilities(records: int) -> int:
    """Return the number of facilities that have about so many records, at least 1."""
    return max(1, round(records / len(read(RECORDING).store)))


def exact_records(records: int) -> int:
    """Return the number of records of these facilities."""
    return facilities(records) * len(read(RECORDING).store)


def write(records: int) -> None:
    """Fill the Store with facilities of about so many records."""
    for number in range(facilities(records)):
        load(facility(number))


def facility(number: int) -> Recording:
    """Return the recorded facility with ids of its own, which depend on the number alone. They are those
    that Kolibri would calculate: its models' own code makes records, too, and finds them by such ids."""
    recording = read(RECORDING)
    rows = {row["id"]: row for row in recording.store}
    known: dict[str, str] = {}

    def another(old: str) -> str:
        if old not in known:
            known[old] = calculated(rows[old])
        return known[old]

    def calculated(row: Row) -> str:
        if row["model_name"] == FacilityDataset.morango_model_name:  # what all other ids are calculated from
            return hashlib.md5(f"{number} {row['id']}".encode()).hexdigest()
        partition = renamed(row["partition"].replace(row["id"], SyncableModel.ID_PLACEHOLDER))
        found: str = SyncableModel.compute_namespaced_id(
            partition, renamed(row["source_id"]), row["model_name"]
        )
        return found

    def renamed(text: str) -> str:
        return UUID.sub(replacement, text)

    def replacement(found: re.Match[str]) -> str:
        old = found[0].replace("-", "")
        if old not in rows:
            return found[0]  # of content or an instance
        new = another(old)
        return str(uuid.UUID(new)) if "-" in found[0] else new

    def copied(rows: list[Row]) -> list[Row]:
        return [dict(json.loads(renamed(json.dumps(row)))) for row in rows]

    return Recording(
        copied(recording.store), copied(recording.record_max_counters), recording.database_max_counters
    )
