"""The recorded syncs in ``data/``: Store rows and their counters as Kolibri's own code wrote them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

Row = dict[str, Any]


@dataclass
class Recording:
    """The rows that a device had received when it began to deserialize; keys are the columns of Morango's
    tables."""

    store: list[Row] = field(default_factory=list)
    record_max_counters: list[Row] = field(default_factory=list)
    database_max_counters: list[Row] = field(default_factory=list)

    def shuffle(self, seed: int) -> None:
        """Put the Store rows into an order that depends on `seed` alone; 0 keeps the recorded order."""
        if seed:
            random.Random(seed).shuffle(self.store)

    def keep(self, ids: Collection[str]) -> None:
        """Drop the Store rows that are not among `ids`, and their counters."""
        self.store = [row for row in self.store if row["id"] in ids]
        self.record_max_counters = [row for row in self.record_max_counters if row["store_model_id"] in ids]


def read(name: str) -> Recording:
    """Read the recording `name` ("small", "twodevice"), every Store row dirty and without an error."""
    recording = Recording()
    homes = {
        "store": recording.store,
        "rmc": recording.record_max_counters,
        "dmc": recording.database_max_counters,
    }
    with gzip.open(DATA / f"kolibri-0.19.5-{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            home = homes.get(row.pop("t"))  # the device itself ("instance") is made by the migrations
            if home is not None:
                home.append(row)
    for row in recording.store:
        row.update(dirty_bit=True, deserialization_error=None, deserialization_exception=None)
    return recording


def live(rows: Iterable[Row], model_name: str) -> list[Row]:
    """List the records of a model that aren't deleted, in the order of their ids."""
    found = [row for row in rows if row["model_name"] == model_name and not row["deleted"]]
    return sorted(found, key=lambda row: str(row["id"]))


def values(row: Row) -> Row:
    """Parse the serialized record."""
    return dict(json.loads(row["serialized"]))


NOT_FOREIGN_KEYS = {
    "_morango_source_id",
    "channel_id",
    "content_id",
    "contentnode_id",
    "instance_id",
    "visitor_id",
}


def with_dependants(rows: Iterable[Row], ids: Collection[str]) -> set[str]:
    """Add to `ids` the live records that refer to one of them, directly or through others."""
    references: dict[str, set[str]] = {}
    for row in rows:
        if not row["deleted"]:
            references[row["id"]] = {
                str(value)
                for key, value in values(row).items()
                if key.endswith("_id") and key not in NOT_FOREIGN_KEYS and value
            }
    found = set(ids)
    while more := {key for key, targets in references.items() if key not in found and targets & found}:
        found |= more
    return found
