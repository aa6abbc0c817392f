"""Broken Store rows: each is a sound one, changed at random in one to three ways. A seed says how."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from morango.models import Store, SyncableModel
from typing_extensions import override

from tests.faults.healthy import World
from tests.support.comparison import existing


class Raw(str):
    """A piece of JSON text for a value that Python's own writer has no form of."""


PLACE = "here stands a Raw"
UNIQUE_REFERENCES = {"card"}
"""Kinds that only one record of may refer to a target."""
WITHOUT: dict[str, dict[str, Any]] = {"sample": {"length": None}}
"""Fields with a JSON form that SQLite's driver doesn't take."""
_LINKS = {"vehicle_ptr_id": "lorry", "box_id": "crate"}
"""Keys that name the parent table's row of a record, and its owner."""
LARGE_BYTES = 10_000_000
ABSENT = "0a" * 16

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.1, 255, 32768, -32769, 2**31 - 1, 2**31, -(2**31) - 1),
    *(2**63 - 1, 2**63, -(2**63) - 1, 1e308, 5e-324, -0.0, Raw("1e999"), Raw(f"{10**400}")),
    *(float("nan"), float("inf"), -float("inf"), Raw(f"{'9' * 5000}"), Raw("-0")),
    *("", " ", "0", "1", "-1", "1.0", "1e999", "NaN", "sNaN", "Infinity", "1E+1000000", "١٢", "true", "null"),
    *("\x00", "a\x00b", "\ud800", "\udfff\ud800", "\ufeff", "\u202e", "🙈" * 40, "ẞ" * 100, "x" * 101),
    *("x" * 5000, "%s", "%(a)s", "{}", "'; --", "\\", '"', "\\x00", "\\N", "\n\r\t", "<b>", "../.."),
    *([], {}, [[]], [None], {"id": 1}, {"": ""}, [1, "a", {"b": [None]}], [{"a" * 5000: 1}], {"a": "\x00"}),
    *("0000-00-00", "2026-02-30", "2026-01-02", "9999-12-31", "0001-01-01", "10000-01-01", "2026-W01-1"),
    *("9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00:00+14:00", "2026-01-01T24:00:00Z"),
    *(
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05+99:99",
        "2026-01-02T03:04:05.1234567Z",
        "24:00:00",
        "12:60",
    ),
    *("999999999 23:59:59", "1000000000 00:00:00", "P999999999999D", "-P1D", "P1Y", "1 day"),
    *(ABSENT, ABSENT.upper(), "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a", "{" + ABSENT + "}", ABSENT[:-1]),
    *(ABSENT + "0", "g" * 32, "urn:uuid:" + ABSENT, "::1", "1.2.3.4.5", "::ffff:1.2.3.4", "256.1.1.1"),
)


def _nested(depth: int, opened: str = "[", closed: str = "]") -> Raw:
    return Raw(f"{opened * depth}1{closed * depth}")


DEEP = (*(_nested(depth) for depth in (50, 900, 990, 5_000, 100_000)), _nested(5_000, '{"a":', "}"))

TEXTS: tuple[Callable[[str], str], ...] = (
    lambda text: "",
    lambda text: " \n ",
    lambda text: "\ufeff" + text,
    lambda text: text + text,
    lambda text: text + ",",
    lambda text: text[1:-1],
    lambda text: text.replace('"', "'"),
    lambda text: text.replace(":", "=", 1),
    lambda text: text.replace("{", '{"id": "1", "name": 5, "title": 6, ', 1),
    lambda text: text[:-1] + ', "id": null}',
    lambda text: text[:-1] + ", }",
    lambda text: text[:-1] + "} // the end",
    lambda text: text[:-1] + ', "\\ud800": 1, "\\u0000": 2, "": 3}',
    lambda text: text[:-1] + ', "save": 1, "pk": 2, "_state": 3, "objects": 4, "__class__": 5}',
    lambda text: text[:-1] + ', "_morango_dirty_bit": true, "_morango_source_id": 5}',
    lambda text: f"[{text}]",
    lambda text: json.dumps(text),
    lambda text: text.encode("utf-16").decode("latin-1").replace("\x00", ""),
    lambda text: text.replace("0", "\x00"),
    lambda text: "\x00",
    lambda text: text + "\x00",
    *(
        lambda text, constant=constant: constant
        for constant in ("null", "true", "5", "NaN", '""', "[]", "{}")
    ),
    *(lambda text, deep=deep: str(deep) for deep in DEEP),
)


@dataclass
class FuzzedRecord:
    """A broken record and the way in which it was broken."""

    row: Store
    changes: list[str] = field(default_factory=list)
    older: SyncableModel | None = None
    """The app row that an earlier, sound version of it left behind."""

    @override
    def __str__(self) -> str:
        changes, row = "; ".join(self.changes), self.row
        return f"{row.model_name!r:.50} {row.id} ({changes}): {row.serialized!r:.300}"


def fuzzed_records(world: World, number: int, seed: str) -> Iterator[FuzzedRecord]:
    """So many broken records; the same for the same seed. No two have the same id."""
    maker = _Maker(world, random.Random(seed))
    for position in range(number):
        yield maker.make(f"fuzzed-{seed}-{position}"[-90:], 1000 + position)


class _Maker:
    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.made: list[Store] = []
        self.names = sorted({row.model_name for row in world.healthy})

    def make(self, name: str, number: int) -> FuzzedRecord:
        fuzzed = FuzzedRecord(self.chance.choice(self.world.templates)(name, number))
        if self.chance.random() < 0.3 and fuzzed.row.model_name not in UNIQUE_REFERENCES:
            fuzzed.older = existing(fuzzed.row, **WITHOUT.get(fuzzed.row.model_name, {}))
        how_often = self.chance.choice((1, 1, 1, 2, 3))
        for _ in range(how_often):
            ways = (self._value, self._value, self._value, self._column, self._column, self._text)
            self.chance.choice(ways)(fuzzed)
        self.made.append(fuzzed.row)
        return fuzzed

    def _value(self, fuzzed: FuzzedRecord) -> None:
        try:
            data = json.loads(fuzzed.row.serialized)
        except (ValueError, RecursionError):
            return
        if not isinstance(data, dict) or not data:
            return
        key = self.chance.choice([*data, "id", *_LINKS.keys() & data.keys()])
        roll, raw = self.chance.random(), ""
        if roll < 0.1:
            data.pop(key, None)
            change = f"{key} is missing"
        else:
            value = self._any_id(key) if roll < 0.3 else self._any_value()
            data[key], raw = (PLACE, value) if isinstance(value, Raw) else (value, raw)
            change = f"{key} = {str(value)!r:.60}"
        fuzzed.changes.append(change)
        fuzzed.row.serialized = json.dumps(data).replace(json.dumps(PLACE), raw)

    def _any_value(self) -> Any:
        roll = self.chance.random()
        if roll < 0.01:
            return self.chance.choice(("x", "\x00", "9 ", "🙈")) * (LARGE_BYTES // 2)
        return self.chance.choice(DEEP) if roll < 0.05 else self.chance.choice(VALUES)

    def _any_id(self, key: str) -> str:
        """Another broken record's, or a sound one's; for the key of the row itself, that of any sound one."""
        sound = self.world.healthy if key == "id" or key in _LINKS else self.world.targets
        row = self.chance.choice([*self.made[-20:], *sound] or [None])
        return ABSENT if row is None else str(row.id)

    def _column(self, fuzzed: FuzzedRecord) -> None:
        row = fuzzed.row
        broken = self.chance.choice([row, *self.made[-20:]])
        any_row = self.chance.choice([row, *self.made[-20:], *self.world.targets])
        text = self.chance.choice(
            ("", " ", "x", "é" * 20, "%", "'", "\x00", "\ufeff", "0", ABSENT, "A:B", "🙈")
        )
        column, value = self.chance.choice(
            (
                ("model_name", self.chance.choice(self.names)),
                ("model_name", self.chance.choice(("nothing", "Unit", "store", "learner", "region", text))),
                ("profile", self.chance.choice(("school", "model_zoo", "facility", text))),
                ("partition", self.chance.choice((text, "x" * 128, "${id}", row.partition.upper()))),
                ("source_id", self.chance.choice((text, "x" * 96, broken.source_id))),
                ("_self_ref_fk", self.chance.choice((text[:32], any_row.id, row.id, ABSENT, row.id.upper()))),
                ("deleted", True),
                ("hard_deleted", True),
                ("dirty_bit", False),
                (
                    "conflicting_serialized_data",
                    self.chance.choice((text, "not JSON\n" * 100, row.serialized)),
                ),
                ("deserialization_error", "old"),
                ("last_saved_counter", self.chance.choice((0, -1, 2**31 - 1))),
                ("id", f"{self.chance.getrandbits(128):032x}"),
            )
        )
        setattr(row, column, value)
        fuzzed.changes.append(f"column {column} = {str(value)!r:.40}")

    def _text(self, fuzzed: FuzzedRecord) -> None:
        text = fuzzed.row.serialized
        roll = self.chance.random()
        if roll < 0.5:
            position = self.chance.randrange(len(TEXTS))
            fuzzed.row.serialized = TEXTS[position](text)
            fuzzed.changes.append(f"text {position}")
            return
        at = self.chance.randrange(len(text) + 1)
        inserted = (
            "" if roll < 0.7 else chr(self.chance.choice((0, 0x22, 0x5C, 0x7B, 0x7D, 0x30, 0x2C, 0x1F648)))
        )
        fuzzed.row.serialized = text[:at] + inserted + text[at + self.chance.randrange(8) :]
        fuzzed.changes.append(f"text changed at {at}")
