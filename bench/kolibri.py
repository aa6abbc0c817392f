"""Kolibri's 28 models: the recorded facility of ``tests/kolibri``, over and over, each time another one."""

from __future__ import annotations

import hashlib
import json
import re

from tests.kolibri.load import load
from tests.kolibri.records import Recording, Row, read

RECORDING = "small"
UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


def facilities(records: int) -> int:
    """How many facilities have about so many records, at least 1."""
    return max(1, round(records / len(read(RECORDING).store)))


def exact_records(records: int) -> int:
    """How many records these facilities have."""
    return facilities(records) * len(read(RECORDING).store)


def write(records: int) -> None:
    """Fill the Store with facilities of about so many records."""
    for number in range(facilities(records)):
        load(facility(number))


def facility(number: int) -> Recording:
    """The recorded facility with ids of its own, which depend on the number alone."""
    recording = read(RECORDING)
    ids = {row["id"] for row in recording.store}

    def another(found: re.Match[str]) -> str:
        old = found[0].replace("-", "")
        if old not in ids:
            return found[0]  # of content or an instance
        new = hashlib.md5(f"{number} {old}".encode()).hexdigest()
        if "-" in found[0]:
            new = f"{new[:8]}-{new[8:12]}-{new[12:16]}-{new[16:20]}-{new[20:]}"
        return new

    def renamed(row: Row) -> Row:
        return dict(json.loads(UUID.sub(another, json.dumps(row))))

    return Recording(
        [renamed(row) for row in recording.store],
        [renamed(row) for row in recording.record_max_counters],
        recording.database_max_counters,
    )
