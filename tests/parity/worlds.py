"""Kinds of records that databases are drawn from: the sample school's, and those of the model zoo."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from morango.models import Store

from tests.model_zoo.rows import build_zoo_row
from tests.support.factories import SCHOOL_ID, build_store_row

ABSENT = "ab" * 16
"""Id that no record has."""

ELSEWHERE = "e1" * 16
"""Beginning of partitions outside of the filter."""


class State(enum.Enum):
    """State of a record before the run: in the Store, and in the app table."""

    NEW = enum.auto()
    UPDATE = enum.auto()
    """Its app row is older."""
    EDITED = enum.auto()
    """Its app row was edited here since."""
    SAME = enum.auto()
    """Its app row is dirty, and equal to it."""
    FAILED_BEFORE = enum.auto()
    CLEAN = enum.auto()
    LOST = enum.auto()
    """Clean without an app row."""
    ONLY_HERE = enum.auto()
    """App row that the Store doesn't know."""
    DELETED = enum.auto()
    DELETED_UPDATE = enum.auto()
    DELETED_EDITED = enum.auto()
    DELETED_BEFORE = enum.auto()
    NOTED = enum.auto()
    """Deleted with its target by an earlier run; in DeletedModels until the next serialization."""

    @property
    def is_dirty(self) -> bool:
        return self not in {State.CLEAN, State.LOST, State.DELETED_BEFORE, State.NOTED, State.ONLY_HERE}

    @property
    def is_deleted(self) -> bool:
        return self.name.startswith("DELETED")

    @property
    def wants_app_row(self) -> bool:
        return self in _WITHOUT_APP_ROW

    @property
    def without_app_row(self) -> State:
        return _WITHOUT_APP_ROW.get(self, self)


_WITHOUT_APP_ROW = {
    State.UPDATE: State.NEW,
    State.EDITED: State.NEW,
    State.SAME: State.NEW,
    State.CLEAN: State.LOST,
    State.ONLY_HERE: State.LOST,
    State.DELETED_UPDATE: State.DELETED,
    State.DELETED_EDITED: State.DELETED,
}


@dataclass(frozen=True)
class Reference:
    """Foreign key of a kind."""

    key: str
    targets: tuple[str, ...]
    nullable: bool = False


@dataclass(frozen=True)
class Kind:
    """Kind of records: those of one model."""

    name: str
    most: int
    references: tuple[Reference, ...] = ()
    old: Mapping[str, Any] = field(default_factory=dict)
    """Values of its app row before the run."""
    invalid: tuple[Mapping[str, Any], ...] = ()
    """Values that the model refuses, all of them in ways that Morango survives."""
    unique: str | None = None
    """Name of a field with unique values."""
    one_each: str | None = None
    """Name of a foreign key with unique values."""
    is_numbered: bool = False
    link: str | None = None
    """Key that names a row of a parent's table, which is forged instead of ``id``."""
    is_tree: bool = False
    may_be_deleted: bool = True


@dataclass(frozen=True)
class World:
    """Kinds of one profile, those that others refer to first."""

    kinds: tuple[Kind, ...]
    build: Callable[..., Store]
    inside: str
    """Filter that all partitions of `build` begin with."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.inside)


SCHOOL = World(
    (
        Kind(
            "unit",
            5,
            (Reference("parent_id", ("unit",), nullable=True),),
            old={"name": "old"},
            invalid=({"name": None}, {"name": "x" * 101}),
            is_tree=True,
        ),
        Kind(
            "learner",
            3,
            (Reference("unit_id", ("unit",)),),
            old={"full_name": "Old Name", "search_name": "old name"},
            invalid=({"birth_year": 3}, {"full_name": None}, {"school_id": ABSENT}),
            unique="username",
        ),
        Kind("lesson", 2, (Reference("unit_id", ("unit",)),), old={"title": "old"}, invalid=({"title": ""},)),
        Kind(
            "attempt",
            4,
            (Reference("learner_id", ("learner",)), Reference("lesson_id", ("lesson",), nullable=True)),
            old={"answer": "old"},
            invalid=({"score": 2.0}, {"kind": "nonsense"}),
        ),
        Kind(
            "feedback",
            2,
            (Reference("attempt_id", ("attempt",)),),
            old={"text": "old"},
            invalid=({"text": ""},),
        ),
    ),
    build_store_row,
    SCHOOL_ID,
)

MODEL_ZOO = World(
    (
        Kind(
            "region",
            3,
            (Reference("parent_id", ("region",), nullable=True),),
            old={"name": "old"},
            invalid=({"name": ""},),
            is_tree=True,
        ),
        Kind(
            "town",
            3,
            (Reference("parent_id", ("region", "town"), nullable=True),),
            old={"name": "old"},
            invalid=({"name": None},),
            is_tree=True,
        ),
        Kind(
            "person",
            2,
            (Reference("home_id", ("region", "town")),),
            old={"name": "Old Name", "initials": "ON"},
            invalid=({"name": "Nobody"},),
        ),
        Kind("card", 2, (Reference("person_id", ("person",)),), one_each="person_id"),
        Kind(
            "club",
            2,
            (Reference("president_id", ("member",), nullable=True),),
            old={"name": "old"},
            invalid=({"name": ""},),
        ),
        Kind("member", 3, (Reference("club_id", ("club",)),), invalid=({"number": "x"},), is_numbered=True),
        Kind(
            "lorry",
            2,
            (Reference("owner_id", ("person",), nullable=True),),
            old={"load_kg": 1},
            unique="plate",
            link="vehicle_ptr_id",
        ),
        Kind("step", 3, may_be_deleted=False, is_numbered=True),
        Kind("letter", 1, old={"text": "old", "closed": True}),
        Kind("reading", 1, old={"small": 7}, invalid=({"small": "x"}, {"positive": -1})),
        Kind("visit", 2, (Reference("person_id", ("person",)),)),
    ),
    build_zoo_row,
    "model_zoo",
)
