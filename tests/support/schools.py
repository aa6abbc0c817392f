"""Schools of Store rows with every fate among them, and the expected state of each in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from django.apps import apps
from django.db import transaction
from django.test import override_settings
from morango.models import DeletedModels, HardDeletedModels, Store
from morango.models.certificates import Filter
from morango.registry import syncable_models

import morango_celery
from morango_celery.models import Batch, Run
from tests.support import factories
from worker.school.models import PROFILE

COMPARED = ("dirty_bit", "hard_deleted", "serialized")
IN_ERROR = ("deserialization_error", "deserialization_exception")


@dataclass
class Outcome:
    """The state of a school's records after a run."""

    app: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """App rows with all their columns, by table."""
    store: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """`COMPARED` and `IN_ERROR` of every Store row, by id."""
    deleted: set[str] = field(default_factory=set)
    """Store rows that are deleted, or will be with the next serialization, of any school."""
    hard_deleted: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    """Counts of the runs: records, saved, deleted, propagated, conflicted, failed."""


class School:
    """Store rows of one school, committed, and their state after an undisturbed run."""

    def __init__(self, school_id: str = factories.SCHOOL_ID, rows: int = 20, *, mixed: bool = True) -> None:
        """
        :param rows: valid records of all models
        :param mixed: add some of every other fate: changed, deleted, propagated, edited here, in error
        """
        self.id = school_id
        factories.fill_store(rows, school_id=school_id)
        if mixed:
            self._add_other_fates()
        self.expected = self.undisturbed()

    def new_run(self, **options: Any) -> Run:
        """Return a pending run of this school alone; no message is sent."""
        options = {"session_notified": True, **options}
        return Run.objects.create(profile=PROFILE, filter=self.id, **options)

    def outcome(self, runs: Sequence[Run] = ()) -> Outcome:
        found = Outcome()
        for model in apps.get_models():
            if getattr(model, "morango_profile", None) == PROFILE and not model._meta.proxy:
                rows = model._base_manager.filter(_morango_partition__startswith=self.id)
                found.app[str(model._meta.model_name)] = list(rows.order_by("pk").values())
        for pk, *values in self._store().values_list("id", *COMPARED, *IN_ERROR):
            found.store[pk] = tuple(values)
        ids = list(found.store)
        found.deleted = set(DeletedModels.objects.filter(pk__in=ids).values_list("pk", flat=True))
        found.deleted.update(self._store().filter(deleted=True).values_list("id", flat=True))
        found.hard_deleted = set(HardDeletedModels.objects.filter(pk__in=ids).values_list("pk", flat=True))
        for run in runs:
            found.counts.update({name: getattr(run, name) for name in ("records", *Run.COUNTS)})
        return found

    def assert_intact(self, *runs: Run) -> None:
        """Every record is saved, deleted or in error with its reason, as without any fault; the ledger is
        closed and adds up: none was counted twice, none never.

        :param runs: those that dealt with the school; each record was handed out by one of them
        """
        for run in runs:
            run.refresh_from_db()
            assert_closed(run)
        ours, expected = self.outcome(runs), self.expected
        assert ours.app == expected.app, _difference(ours.app, expected.app)
        assert ours.store == expected.store, _difference(ours.store, expected.store)
        assert (ours.deleted, ours.hard_deleted) == (expected.deleted, expected.hard_deleted)
        if runs:
            assert ours.counts == expected.counts
        for pk, (dirty, *_, error, exception) in ours.store.items():
            assert dirty == bool(error) == bool(exception), f"{pk} has no end: {dirty}, {error}, {exception}"

    def _store(self) -> Any:
        return Store.objects.filter(profile=PROFILE, partition__startswith=self.id)

    def undisturbed(self) -> Outcome:
        """Return the outcome of a run in this process on the present rows; it is undone."""
        # Morango sets no isolation level then, which it could not in the middle of a transaction.
        with transaction.atomic(), override_settings(MORANGO_TEST_POSTGRESQL=True):
            run = morango_celery.deserialize(PROFILE, Filter(self.id), in_process=True)
            assert_closed(run)
            expected = self.outcome([run])
            transaction.set_rollback(True)
        return expected

    def _add_other_fates(self) -> None:
        numbers = count(1)

        def add(model_name: str, name: str, **options: Any) -> Store:
            # In the same order in every school, so that all of them take the same statements
            pk = f"{next(numbers):04x}{self.id[:28]}"
            source_id = f"{name}-{self.id}"
            return factories.store_row(model_name, id=pk, source_id=source_id, school_id=self.id, **options)

        units, learners = self._store().filter(model_name="unit"), self._store().filter(model_name="learner")
        unit, learner = units.filter(_self_ref_fk="").get(), learners.earliest("id")
        _app_row(unit)
        _app_row(add("lesson", "changed", unit=unit, title="new"), title="old")
        gone = add("lesson", "deleted", unit=unit, deleted=True)
        _app_row(gone)
        add("attempt", "propagated", learner=learner, lesson=gone)
        hard_deleted = add("lesson", "hard-deleted", unit=unit, hard_deleted=True)
        _app_row(hard_deleted, unit_id=unit.id, school_id=self.id, title="old")
        edited = add("lesson", "edited-here", unit=unit, title="synced")
        _app_row(edited, edited=True, title="edited")
        add("lesson", "too-long", unit=unit, title="long" * 100)
        add("lesson", "no-such-unit", unit_id="ab" * 16)
        add("lesson", "no-json", unit=unit, serialized='{"title": "')
        add("spaceship", "unknown-model")
        lost = add("learner", "wrong-school", unit=unit, username=f"lost-{self.id[:8]}")
        lost.serialized = json.dumps({**json.loads(lost.serialized), "school_id": "ef" * 16})
        lost.save()
        add("attempt", "of-a-failed-learner", learner=lost)
        _app_row(add("learner", "there", unit=unit, username=f"taken-{self.id[:8]}"))
        add("learner", "name-taken", unit=unit, username=f"taken-{self.id[:8]}")


def assert_closed(run: Run) -> None:
    """Assert that the run is completed, no batch is open, and its counters add up."""
    assert (run.state, run.error, run.open_batches) == (Run.State.COMPLETED, "", 0), run.error
    assert run.done == run.records
    batches = Batch.objects.filter(run=run)
    assert not batches.filter(state=Batch.State.OPEN).exists()
    if run.pass_number == 1:
        done = list(batches.filter(state=Batch.State.DONE).values_list("size", *Run.COUNTS))
        assert sum(size for size, *_ in done) == run.records
        assert all(size == sum(counts) for size, *counts in done)


def _app_row(store: Store, *, edited: bool = False, **values: Any) -> None:
    """Save the app row of an earlier version of the record.

    :param edited: changed here since then
    """
    model = syncable_models.get_model(PROFILE, store.model_name)
    known = {column.attname for column in model._meta.concrete_fields}
    data = {name: value for name, value in json.loads(store.serialized or "{}").items() if name in known}
    about = {
        "id": store.id,
        "_morango_source_id": store.source_id,
        "_morango_partition": store.partition,
        "_morango_dirty_bit": edited,
    }
    model(**{**data, **values, **about}).save_base(raw=True, force_insert=True)


def _difference(ours: dict[str, Any], expected: dict[str, Any]) -> str:
    keys = [key for key in {**expected, **ours} if ours.get(key) != expected.get(key)]
    return "\n".join(f"{key}\n  is:        {ours.get(key)}\n  should be: {expected.get(key)}" for key in keys)


class MakeSchool(Protocol):
    def __call__(self, rows: int = 20, *, mixed: bool = True) -> School: ...
