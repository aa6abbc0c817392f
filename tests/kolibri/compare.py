"""Outcomes of the two implementations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.differences import Tables

STORE = "morango_store"


@dataclass(frozen=True)
class Outcome:
    """The contents of a file by ``implementation.py``."""

    implementation: str
    tables: Tables
    again: Tables | None
    """The tables after more rounds; None when they changed nothing."""
    aborted: str | None
    """The error that ended the function, if any."""
    poison: Mapping[str, Mapping[str, Any]]
    """Groups of records that are to abort Morango's function: their ``ids``, and the error (``aborted``)
    when this group alone was there."""
    retried: bool
    """True if Morango's function went through once all of these were set aside."""
    seconds: float
    """Duration of the function on the last recording, all attempts for ``tables`` together."""
    models: Mapping[str, Mapping[str, Any]]
    """Per model name: its table, whether it is a tree, the columns that come from the clock."""
    clock: str
    serialization: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Ours alone: the results of serializing the app rows afterwards, by Morango's function and by ours;
    see ``serialization.compare``."""

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """Read the file that an implementation wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def stable(self) -> Tables:
        """The tables when more rounds change nothing."""
        return self.tables if self.again is None else self.again

    @property
    def store(self) -> Mapping[str, Mapping[str, Any]]:
        """Store rows by id."""
        return self.tables[STORE]

    @cached_property
    def poisonous(self) -> set[str]:
        """Ids of all records that are to abort Morango's function."""
        return {key for group in self.poison.values() for key in group["ids"]}

    @cached_property
    def in_error(self) -> list[str]:
        """Ids of the records that are dirty with an error."""
        return [key for key, row in self.store.items() if row["dirty_bit"] and row["deserialization_error"]]

    @cached_property
    def forgotten(self) -> list[str]:
        """Ids of the records that are dirty without an error: nothing says why they weren't deserialized."""
        return [
            key for key, row in self.store.items() if row["dirty_bit"] and not row["deserialization_error"]
        ]

    def app_row(self, record_id: str) -> Mapping[str, Any] | None:
        """Find the app row of a record, if its model is registered and the row exists."""
        model = self.models.get(self.store[record_id]["model_name"])
        return self.tables[model["table"]].get(record_id) if model else None

    def per_model(self, record_ids: Iterable[str]) -> Counter[str]:
        """Count records by their model."""
        return Counter(self.store[key]["model_name"] for key in record_ids)
