"""Hypothesis strategies for whole databases: records that refer to each other, and their defects."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from morango.models import Store, SyncableModel
from morango.models.certificates import Filter
from morango.registry import syncable_models

from tests.parity.case import Case
from tests.parity.worlds import ABSENT, ELSEWHERE, MODEL_ZOO, SCHOOL, Kind, Reference, State, World

SEED = int(os.environ.get("PARITY_SEED") or 0)
"""0 draws the same databases each time, any other seed others."""

EXAMPLES = int(os.environ.get("PARITY_EXAMPLES") or 30)
"""Number of databases of each world that are drawn."""

MISMATCH = "morango_celery.errors.MismatchedIdError"

OLD_ERROR = {"deserialization_error": "old", "deserialization_exception": "old.Error"}


@dataclass
class Record:
    """Drawn record, before it becomes rows."""

    kind: Kind
    number: int
    state: State
    hard: bool
    outside: bool
    defect: str | Mapping[str, Any] | None
    targets: dict[str, str | None] = field(default_factory=dict)
    """Ids by foreign key."""
    says_id: str | None = None
    """Another id than its own that its JSON names."""
    values: dict[str, Any] = field(default_factory=dict)
    old_values: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Readable, and in no order that means anything."""
        return f"{self.number:x}{self.kind.name.encode().hex()}".ljust(32, "0")[:32]


@st.composite
def cases(draw: st.DrawFn, world: World) -> Case:
    """Draw a database with at least one record, and the arguments of the call."""
    filtered = draw(st.booleans())
    skip_erroring = draw(st.sampled_from([False, False, False, True]))
    records = [
        draw(_records(kind, number, filtered))
        for kind in world.kinds
        for number in range(draw(st.integers(0, kind.most)))
    ]
    if not records:
        records = [draw(_records(world.kinds[0], 0, filtered))]
    for record in records:
        for reference in record.kind.references:
            record.targets[reference.key] = draw(_targets(reference, records))
        _number(record, draw)
        record.says_id = draw(_other_ids(record, records))
    for kind in world.kinds:
        _share_out(kind, [record for record in records if record.kind is kind], draw)
    _make_possible(records, skip_erroring=skip_erroring)
    rows = {record.id: _store_row(record, world) for record in records}
    unknown = [world.build("timetable", id="99" * 16)] if draw(st.sampled_from([0, 0, 0, 1])) else []
    return Case(
        rows=draw(st.permutations([rows[r.id] for r in records if r.state is not State.ONLY_HERE] + unknown))
        or [world.build("timetable", id="99" * 16)],
        app=[_app_row(record, rows[record.id]) for record in records if record.state.wants_app_row],
        noted=[record.id for record in records if record.state is State.NOTED],
        differing={
            record.id: path
            for record in records
            if (path := _path_of_ours(record)) and record.state.is_dirty and not record.state.is_deleted
        },
        filter=draw(_filters(world, rows.values())) if filtered else None,
        skip_erroring=skip_erroring,
    )


def _path_of_ours(record: Record) -> str | None:
    """Return the path of an error that Morango has nothing like."""
    if record.defect == "null":
        return "builtins.TypeError"
    return MISMATCH if record.says_id and record.defect != "{" else None


def _other_ids(record: Record, records: Sequence[Record]) -> st.SearchStrategy[str | None]:
    """Mostly none; else that of any other record, or one that none has."""
    others = [other.id for other in records if other is not record]
    return st.sampled_from([None] * 30 + [ABSENT]) | st.sampled_from([None] * 4 * (len(others) + 1) + others)


def _filters(world: World, rows: Iterable[Store]) -> st.SearchStrategy[Filter]:
    """Draw one prefix that all partitions inside begin with; or each of these as one, and many more."""
    partitions = [row.partition for row in rows if row.partition.startswith(world.inside)]
    nothing = [f"{ELSEWHERE}:{number}" for number in range(100)]
    return st.sampled_from([Filter(world.inside), Filter("\n".join([*nothing, *partitions]))])


@st.composite
def _records(draw: st.DrawFn, kind: Kind, number: int, filtered: bool) -> Record:
    states = [State.NEW] * 8 + [state for state in State if kind.may_be_deleted or not state.is_deleted]
    sound: list[str | Mapping[str, Any] | None] = [None] * 8
    return Record(
        kind,
        number,
        state=draw(st.sampled_from(states)),
        hard=draw(st.booleans()),
        outside=filtered and draw(st.sampled_from([False, False, False, True])),
        defect=draw(st.sampled_from([*sound, *kind.invalid, "{", "null"])),
    )


def _targets(reference: Reference, records: Sequence[Record]) -> st.SearchStrategy[str | None]:
    """Mostly sound, sometimes an id that no record has; null where there is nothing to choose from."""
    ids = [record.id for record in records if record.kind.name in reference.targets] * 4
    return st.sampled_from([*ids, ABSENT, *([None, None] if reference.nullable or not ids else [])])


def _number(record: Record, draw: st.DrawFn) -> None:
    """Values that have to fit in with those of other records of the kind."""
    if record.kind.is_numbered:
        record.values["number"] = record.number + 1
    if record.kind.name == "step":
        record.values["trail"] = "north"


def _share_out(kind: Kind, records: Sequence[Record], draw: st.DrawFn) -> None:
    """Give each record a unique value, and its old row too: they may be taken over from each other."""
    if kind.unique is None or not records:
        return
    names = [f"name{number}" for number in range(len(records) + 1)]
    for record, new, old in zip(
        records, draw(st.permutations(names)), draw(st.permutations(names)), strict=False
    ):
        record.values[kind.unique] = new
        record.old_values[kind.unique] = old


def _make_possible(records: Sequence[Record], *, skip_erroring: bool) -> None:
    """Change impossible rows, such as one that refers to none, and cases left to chance on purpose."""
    by_id = {record.id: record for record in records}
    given_away: set[tuple[str, str | None]] = set()
    for record in records:
        if record.kind.one_each is not None:
            one = record.kind.name, record.targets[record.kind.one_each]
            if one in given_away:
                record.targets[record.kind.one_each] = ABSENT
            given_away.add(one)
        if record.kind.name in ("club", "member") and record.state.is_dirty and not record.state.is_deleted:
            record.state = record.state.without_app_row
        if record.kind.unique and record.state is State.SAME:
            record.state = State.UPDATE
        if record.kind.is_tree and record.state is State.DELETED_EDITED:
            record.state = State.DELETED_UPDATE
        if record.kind.one_each and record.state.wants_app_row:
            record.state = record.state.without_app_row
        if record.kind.name == "attempt":
            learner = by_id.get(record.targets["learner_id"] or "")
            doubtful = learner is None or learner.defect or learner.state is not State.NEW
            if doubtful or skip_erroring:
                record.targets["lesson_id"] = None
        if skip_erroring and record.state.is_dirty:
            # Nothing tells then which targets have failed in this run, if there is an app row
            record.state = record.state.without_app_row
    waiting = True
    while waiting:
        waiting = False
        for record in records:
            sound = all(
                target is None or (target in by_id and by_id[target].state.wants_app_row)
                for target in record.targets.values()
            )
            nulls = any(record.targets[r.key] is None and not r.nullable for r in record.kind.references)
            if record.state.wants_app_row and (nulls or not sound):
                record.state = record.state.without_app_row
                waiting = True


def _store_row(record: Record, world: World) -> Store:
    state = record.state
    values = {**record.values, **record.targets}
    if isinstance(record.defect, Mapping):
        values.update(record.defect)
    partition = {"partition": ELSEWHERE} if record.outside else {}
    row = world.build(
        record.kind.name,
        id=record.id,
        source_id=f"{record.kind.name} {record.number}",
        dirty=state.is_dirty,
        deleted=state.is_deleted,
        hard_deleted=state.is_deleted and record.hard,
        columns=OLD_ERROR if state is State.FAILED_BEFORE else None,
        **partition,
        **values,
    )
    if record.says_id:
        key = record.kind.link or "id"
        row.serialized = row.serialized.replace(f'"{key}": "{record.id}"', f'"{key}": "{record.says_id}"')
    if isinstance(record.defect, str) and not (state.is_deleted and record.hard):
        row.serialized = record.defect
    return row


def _app_row(record: Record, row: Store) -> SyncableModel:
    model: type[SyncableModel] = syncable_models.get_model(row.profile, row.model_name)
    sound = _store_row(
        Record(
            record.kind,
            record.number,
            State.NEW,
            False,
            record.outside,
            None,
            record.targets,
            values=record.values,
        ),
        World((), MODEL_ZOO.build if row.profile == "model_zoo" else SCHOOL.build, ""),
    )
    data = json.loads(sound.serialized)
    if record.state is not State.SAME:
        data.update(record.kind.old)
        data.update(record.old_values)
    instance: SyncableModel = model(
        **{f.attname: f.to_python(data[f.attname]) for f in model._meta.concrete_fields if f.attname in data}
    )
    instance._morango_source_id = row.source_id
    instance._morango_partition = row.partition
    instance._morango_dirty_bit = record.state in (State.EDITED, State.SAME, State.DELETED_EDITED)
    return instance
