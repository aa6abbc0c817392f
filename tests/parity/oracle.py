"""What must come of a case: Morango's own result, corrected where ``docs/fidelity.md`` says so.

Some deviations are corrected after Morango has run, in the database. Where Morango would abort, or
do what we don't, it gets a stand-in for the record instead: one that makes it do to all the others
what they deserve. Which records need one is found by running it again and again.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from django.db import connection
from django.db.models import CASCADE, Field, ForeignKey, Model
from morango.models import DeletedModels, HardDeletedModels, Store, SyncableModel
from morango.models.certificates import Filter
from morango.registry import syncable_models
from morango.sync.operations import _deserialize_from_store as morangos
from morango.sync.operations import _self_referential_fk

from tests.parity.harness import Database, read, rolled_back, save_all

INVALID = ("django.core.exceptions.ValidationError", "json.decoder.JSONDecodeError")
DIRTY_PARENT = ("Parent is dirty; could not deserialize.", "morango.errors.MorangoDirtyParent")
INTEGRITY = "django.db.utils.IntegrityError"
MISSING_PARENT = "morango.errors.MorangoMissingParent"
MISSING_PARENT_TEXT = "Parent does not exist in Store; could not deserialize."
UNKNOWN_MODEL = "morango_celery.errors.UnknownModelError"
OF_OUR_OWN = "(a text of our own)"
MOST_ROUNDS = 30


@dataclass(frozen=True)
class Case:
    """A database and the call to deserialize it."""

    rows: Sequence[Store]
    app: Sequence[SyncableModel]
    noted: Sequence[str] = ()
    """Ids in DeletedModels: deleted with their target by an earlier run, not serialized since."""
    aborting: Mapping[str, str] = field(default_factory=dict)
    """Records on which Morango gives up, and the exception path that we record instead."""
    filter: Filter | None = None
    skip_erroring: bool = False

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How Hypothesis shows an example."""
        lines = [f"filter={self.filter and str(self.filter)!r}, skip_erroring={self.skip_erroring}"]
        for row in self.rows:
            flags = ("dirty_bit", "deleted", "hard_deleted", "deserialization_error", "_self_ref_fk")
            marks = [name for name in flags if getattr(row, name)]
            marks += ["noted"] if row.id in self.noted else []
            lines.append(f"{row.model_name} {row.id} {' '.join(marks)} in {row.partition}: {row.serialized}")
        for instance in self.app:
            dirty = "edited" if instance._morango_dirty_bit else "clean"
            lines.append(f"{dirty} app row of {type(instance).__name__}: {instance.serialize()}")
        printer.text("\n  ".join(["Case", *lines]))

    @property
    def profile(self) -> str:
        return str(self.rows[0].profile)

    def takes(self, row: Store) -> bool:
        """Whether the call is about this record."""
        return (
            row.dirty_bit
            and (self.filter is None or row.partition in self.filter)
            and not (self.skip_erroring and bool(row.deserialization_error))
        )

    def set_up(self, rows: Iterable[Store]) -> None:
        save_all(rows, copy.deepcopy(self.app))
        DeletedModels.objects.bulk_create(DeletedModels(id=i, profile=self.profile) for i in self.noted)


@dataclass(frozen=True)
class Broken:
    """Stands in for a record that is in error for a reason of ours."""

    text: str
    path: str


@dataclass(frozen=True)
class Lost(Broken):
    """Stands in for a record whose target isn't there, for no reason of its own."""


@dataclass(frozen=True)
class Gone:
    """Stands in for a record that is deleted with what it refers to."""

    hard: bool


@dataclass(frozen=True)
class LeftAlone:
    """Stands in for a record that yields to a local edit."""


@dataclass(frozen=True)
class Kept(LeftAlone):
    """Stands in for a deleted record that yields to a local edit."""


StandIn = Broken | Gone | LeftAlone
Finding = tuple[str, StandIn, str | None]
"""The id of a record, what has to stand in for it, and the target that is the reason, if one is."""


def expected(case: Case) -> Database:
    """The database that our engine has to leave behind, whatever the batches."""
    stand_ins: dict[str, StandIn] = {
        store_id: Broken(OF_OUR_OWN, path) for store_id, path in case.aborting.items()
    }
    result = Database()
    for _ in range(MOST_ROUNDS):
        with rolled_back():
            case.set_up(_prepared(case, stand_ins))
            _run_until_settled(case)
            found = _first_causes([each for each in _misjudged(case) if each[0] not in stand_ins])
            if not found:
                _correct(case, stand_ins)
                connection.check_constraints()
                read(result, case.profile)
                return result
        stand_ins |= found
    raise AssertionError(f"No end of stand-ins: {stand_ins}")


def _first_causes(findings: Sequence[Finding]) -> dict[str, StandIn]:
    """Those that no other one may be the cause of, for its fate is going to change.

    What is to be deleted yields whatever else there is. A target in error goes before one that is deleted,
    that before one that isn't there, and all of them before a local edit.
    """
    ids = {store_id for store_id, _, _ in findings}
    first = [finding for finding in findings if finding[2] not in ids] or findings
    for kind in (Kept, Broken, Gone, Lost, LeftAlone):
        found = {store_id: stand_in for store_id, stand_in, _ in first if type(stand_in) is kind}
        if found:
            return found
    return {}


def _prepared(case: Case, stand_ins: Mapping[str, StandIn]) -> Iterator[Store]:
    edited = {instance.pk for instance in case.app if instance._morango_dirty_bit}
    # Left to chance with Morango is whether siblings of a deleted record are saved before or after
    for original in sorted(case.rows, key=lambda each: not each.deleted):
        row = copy.copy(original)
        if case.takes(row):
            row.unset_deserialization_error()  # spread-deletions-stay-dirty, with the old error
        # deleted-orphans, parents-outside-the-filter
        if row.deleted or _is_elsewhere(row._self_ref_fk, case):
            row._self_ref_fk = ""
        if row.id in edited and not case.takes(original):
            row.deleted = row.hard_deleted = False  # local-edits
        match stand_ins.get(row.id):
            case Broken():
                row.serialized = "{"
            case Gone(hard):
                row.deleted, row.hard_deleted = True, hard
            case LeftAlone():
                row.dirty_bit = row.deleted = row.hard_deleted = False
        yield row
    # targets-outside-the-store
    for instance in case.app:
        if instance.pk not in {row.id for row in case.rows}:
            yield Store(
                id=instance.pk,
                profile=case.profile,
                model_name=instance.morango_model_name,
                partition=instance._morango_partition,
                source_id=instance._morango_source_id,
                last_saved_instance="1d" * 16,
                last_saved_counter=1,
            )


def _is_elsewhere(parent_id: str, case: Case) -> bool:
    """Whether a tree parent isn't among what Morango looks at, and has an app row."""
    inside = [row.id for row in case.rows if case.filter is None or row.partition in case.filter]
    return parent_id not in inside and parent_id in {instance.pk for instance in case.app}


def _run_until_settled(case: Case) -> None:
    """row-order: further runs save what found a bad order in the first."""
    before: object = None
    while True:
        morangos(case.profile, skip_erroring=case.skip_erroring, filter=case.filter)
        after = list(Store.objects.order_by("id").values_list("dirty_bit", "deserialization_error"))
        if after == before:
            return
        before = after
        if case.skip_erroring:  # it must not skip what has failed only now
            tried = [row.id for row in case.rows if case.takes(row)]
            Store.objects.filter(id__in=tried).update(deserialization_error=None)


def _misjudged(case: Case) -> Iterator[Finding]:
    """Records of which Morango has made something else than we promise, in the database as it is."""
    stored = {row.id: row for row in Store.objects.all()}
    deleted = set(DeletedModels.objects.values_list("id", flat=True))
    hard_deleted = set(HardDeletedModels.objects.values_list("id", flat=True))
    rows = _app_rows(case.profile)
    known = {row.id for row in case.rows}
    taken = [row for row in case.rows if case.takes(row) and _model(row) is not None]
    in_error = {row.id for row in taken if stored[row.id].deserialization_error}
    edited = {instance.pk: instance for instance in case.app if instance._morango_dirty_bit}
    for original in taken:
        row = stored[original.id]
        if row.id in in_error:
            if row.deserialization_exception.endswith("DoesNotExist"):  # said by the model's own save()
                lost = [i for i in json.loads(original.serialized).values() if i in deleted]
                yield from ((row.id, Gone(hard=i in hard_deleted), i) for i in lost)
            continue
        if row.deleted:
            edit = edited.get(row.id)
            if edit is not None and not _is_swept_away(edit, rows):
                yield row.id, Kept(), None  # local-edits
            continue
        now = rows[_table(original)].get(row.id)
        if now is None or row.id in deleted:  # deleted with what it refers to
            for target in _synced_targets(original):
                if target in in_error:  # failed-targets
                    yield row.id, Broken(f"['… with id {target} failed to deserialize']", INVALID[0]), target
            continue
        if row.id in edited and _values(edited[row.id]) != _values(now):
            yield row.id, LeftAlone(), None  # local-edits
        for foreign_key, target in _references(now):
            exists = _exists(rows, foreign_key, target)
            if exists and _self_referential_fk(type(now)):
                continue  # of trees, Morango asks the app tables alone
            if target in deleted and not exists and target not in in_error:
                yield row.id, Gone(hard=target in hard_deleted), target  # spread-deletion-levels
            elif target in in_error:
                yield row.id, Broken(_failed(foreign_key, target), INVALID[0]), target  # failed-targets
            elif not exists and target in known:
                yield row.id, Lost(_failed(foreign_key, target), INVALID[0]), target
            elif not exists:
                yield row.id, Lost(_missing(foreign_key, target), INTEGRITY), target


def _failed(foreign_key: ForeignKey[Any, Any], target: str) -> str:
    return f"['{_target(foreign_key)._meta.verbose_name} with id {target} failed to deserialize']"


def _missing(foreign_key: ForeignKey[Any, Any], target: str) -> str:
    name = _target(foreign_key)._meta.verbose_name
    reference = f"{foreign_key.model.__name__}.{foreign_key.attname}"
    return f"{reference} references non-existent {name} instance with id '{target}'"


def _correct(case: Case, stand_ins: Mapping[str, StandIn]) -> None:
    """Undo what was prepared, and put right what Morango leaves wrong."""
    Store.objects.exclude(id__in=[row.id for row in case.rows]).delete()
    noted = set(DeletedModels.objects.values_list("id", flat=True))
    stored = {row.id: row for row in Store.objects.all()}
    for original in case.rows:
        row = stored[original.id]
        row.serialized, row._self_ref_fk = original.serialized, original._self_ref_fk
        row.deleted, row.hard_deleted = original.deleted, original.hard_deleted
        if case.takes(original):
            _correct_record(row, stand_ins.get(row.id), case, stored, noted)
        row.save()
    _harden(case)


def _harden(case: Case) -> None:
    """spread-deletion-levels: of several targets one may be purged, at whatever level."""
    noted = set(DeletedModels.objects.values_list("id", flat=True)) - set(case.noted)
    hard = set(HardDeletedModels.objects.values_list("id", flat=True))
    noted -= set(Store.objects.exclude(deserialization_error=None).values_list("id", flat=True))
    spread = [row for row in case.rows if row.id in noted and case.takes(row)]
    while more := [row for row in spread if row.id not in hard and not hard.isdisjoint(_synced_targets(row))]:
        hard.update(row.id for row in more)
        HardDeletedModels.objects.bulk_create(HardDeletedModels(id=r.id, profile=r.profile) for r in more)


def _correct_record(
    row: Store, stand_in: StandIn | None, case: Case, stored: Mapping[str, Store], noted: set[str]
) -> None:
    if isinstance(stand_in, LeftAlone):
        row.dirty_bit = True
        return
    if isinstance(stand_in, Gone):
        DeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
        if stand_in.hard:
            HardDeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
        row.dirty_bit = False
    elif isinstance(stand_in, Broken) and row.deserialization_exception in INVALID:
        row.deserialization_error, row.deserialization_exception = stand_in.text, stand_in.path
    elif _model(row) is None:  # unregistered-models
        row.deserialization_error, row.deserialization_exception = OF_OUR_OWN, UNKNOWN_MODEL
    elif re.search("references non-existent|failed to deserialize", row.deserialization_error or ""):
        # spread-deletion-levels: Morango notes a deletion beside a bad target, but of one level
        named = re.search("with id (\\w+) failed", row.deserialization_error)
        targets = _synced_targets(row)
        earlier = targets[: targets.index(named[1])] if named else targets
        for target in noted.intersection(earlier):
            DeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
            if HardDeletedModels.objects.filter(id=target).exists():
                HardDeletedModels.objects.get_or_create(id=row.id, profile=row.profile)
    if row.deserialization_error and _has_lost_parent(row, case):  # parents-outside-the-filter
        row.deserialization_error, row.deserialization_exception = MISSING_PARENT_TEXT, MISSING_PARENT
    parent = stored.get(row._self_ref_fk)
    if row.deserialization_exception == MISSING_PARENT and parent is not None and case.takes(parent):
        # dirty-parents-called-missing
        row.deserialization_error, row.deserialization_exception = DIRTY_PARENT
    if not row.deserialization_error and (row.deleted or row.id in noted):
        row.dirty_bit = False  # deleted-records-stay-dirty, spread-deletions-stay-dirty
    if not row.dirty_bit and not row.deleted:
        _restore_clock(row)


def _has_lost_parent(row: Store, case: Case) -> bool:
    """Whether a parent outside of the filter was there, and has gone with what it belonged to."""
    model = _model(row)
    return (
        model is not None
        and _is_elsewhere(row._self_ref_fk, case)
        and not model._base_manager.filter(pk=row._self_ref_fk).exists()
    )


def _restore_clock(row: Store) -> None:
    """auto-now"""
    model = _model(row)
    assert model is not None
    if clocks := _clocks(model):
        synced = json.loads(row.serialized)
        model._base_manager.filter(pk=row.id).update(**{name: synced[name] for name in clocks})


def in_our_words(expectation: Database, ours: Database, case: Case) -> Database:
    """The expectation with our wording where that is up to us.

    Of a record in error on both sides we may say that its target failed, if that is so (failed-targets):
    Morango doesn't look, and so comes to some other error, its own or one that follows.
    """
    rows = {row.id: row for row in case.rows}
    result = copy.deepcopy(expectation)
    for store_id, (text, path) in ours.errors.items():
        theirs = expectation.errors.get(store_id)
        if theirs is None:
            continue
        named = re.fullmatch(r"\['.+ with id (\w+) failed to deserialize'\]", text or "")
        ours_to_say = theirs[0] == OF_OUR_OWN and text and path == theirs[1]
        names_failure = named and named[1] in rows[store_id].serialized and named[1] not in _saved(ours)
        left_to_chance = case.skip_erroring and {path, theirs[1]} == {DIRTY_PARENT[1], MISSING_PARENT}
        if ours_to_say or names_failure or left_to_chance:
            result.errors[store_id] = (text, path)
            values = result.serialized[store_id]
            values["deserialization_error"], values["deserialization_exception"] = text, path
    return result


def _saved(database: Database) -> set[str]:
    """Ids of app rows whose records are not in error."""
    ids = {row["id"] for rows in database.app.values() for row in rows}
    return ids - database.errors.keys()


def _model(row: Store) -> type[SyncableModel] | None:
    try:
        model: type[SyncableModel] = syncable_models.get_model(row.profile, row.model_name)
    except KeyError:
        return None
    return model


def _table(row: Store) -> str:
    model = _model(row)
    assert model is not None
    return str(model._meta.concrete_model._meta.db_table)


def _app_rows(profile: str) -> dict[str, dict[str, SyncableModel]]:
    """App rows by table and id."""
    tables = {model._meta.concrete_model for model in syncable_models.get_models(profile)}
    return {model._meta.db_table: {row.pk: row for row in model._base_manager.all()} for model in tables}


def _references(instance: SyncableModel) -> Iterator[tuple[ForeignKey[Any, Any], str]]:
    """What an app row points at by foreign keys, but for its tree parent: Morango looks after that."""
    tree = _self_referential_fk(type(instance))
    for foreign_key in instance._meta.concrete_fields:
        if not isinstance(foreign_key, ForeignKey) or foreign_key.remote_field.parent_link:
            continue
        value = getattr(instance, foreign_key.attname)
        if value is not None and foreign_key.attname != tree:
            yield foreign_key, value


def _synced_targets(row: Store) -> list[str]:
    """What the record refers to, in the order of its model's foreign keys."""
    model = _model(row)
    assert model is not None
    synced = json.loads(row.serialized)
    keys = [f.attname for f in model._meta.concrete_fields if isinstance(f, ForeignKey)]
    return [synced[key] for key in keys if synced.get(key)]


def _exists(rows: Mapping[str, Mapping[str, Any]], foreign_key: ForeignKey[Any, Any], target: str) -> bool:
    return target in rows[_target(foreign_key)._meta.db_table]


def _target(foreign_key: ForeignKey[Any, Any]) -> type[Model]:
    return cast(type[Model], foreign_key.related_model)


def _is_swept_away(instance: SyncableModel, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an app row had to go because another one did."""
    return any(
        foreign_key.remote_field.on_delete is CASCADE and not _exists(rows, foreign_key, target)
        for foreign_key, target in _references(instance)
    )


def _values(instance: SyncableModel) -> list[Any]:
    uncompared = {"_morango_dirty_bit", *_clocks(type(instance))}
    fields: Iterable[Field[Any, Any]] = instance._meta.concrete_fields
    return [getattr(instance, f.attname) for f in fields if f.attname not in uncompared]


def _clocks(model: type[SyncableModel]) -> list[str]:
    fields: Iterable[Any] = model._meta.concrete_fields
    return [f.attname for f in fields if getattr(f, "auto_now", False) or getattr(f, "auto_now_add", False)]
