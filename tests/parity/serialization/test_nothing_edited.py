"""Serializations that find nothing to store: Morango's counters, in one statement on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from morango.models import DeletedModels, SyncableModel
from morango.models.certificates import Filter
from morango.models.core import DatabaseMaxCounter, HardDeletedModels, InstanceIDModel

from morango_celery.db.dialect import dialect
from morango_celery.reading.prefixes import FEW
from morango_celery.serialization import serialize_into_store
from tests.model_zoo.rows import build_zoo_row
from tests.parity.serialization.harness import assert_same, database_counter, device, edited, unit
from tests.support.comparison import existing, rolled_back, save_all
from tests.support.factories import SCHOOL_ID, build_store_row
from worker.school.models import PROFILE, Learner, Lesson, Unit

OTHER = "ab" * 16
FILTERS = [
    None,
    Filter(""),
    Filter(SCHOOL_ID),
    Filter(f"{SCHOOL_ID}:units\n{SCHOOL_ID}:l\n{SCHOOL_ID}"),
    Filter("\n".join(f"{SCHOOL_ID}:{number}" for number in range(FEW + 1))),
    Filter("\n".join(f"{number:032x}" for number in range(FEW + 1))),
]
NAMES = ["none", "empty", "one", "overlapping", "many", "many facilities"]


def covers(sync_filter: Filter | None, partition: str) -> bool:
    return sync_filter is None or sync_filter.contains_partition(partition)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("sync_filter", FILTERS, ids=NAMES)
def test_counters_are_morangos_where_nothing_was_edited(sync_filter: Filter | None, times: int) -> None:
    here, elsewhere = unit(dirty=True), unit(school_id=OTHER)
    rows = [existing(here), edited(build_zoo_row("region"))]
    if not covers(sync_filter, elsewhere.partition):
        rows.append(edited(elsewhere))
    others = [
        database_counter("", 7),
        database_counter(SCHOOL_ID, 7),
        database_counter(SCHOOL_ID, 7, instance_id=OTHER),
        DeletedModels(id=here.id, profile="model_zoo"),
        HardDeletedModels(id=here.id, profile="model_zoo"),
    ]

    result = assert_same(rows, [here], others, filter=sync_filter, times=times)

    assert result.store[here.id]["dirty_bit"]
    noted = {
        row["partition"]: row["counter"]
        for row in result.tables["morango_databasemaxcounter"].values()
        if row["instance_id"] == device()
    }
    assert {partition for partition, counter in noted.items() if counter == times} == set(sync_filter or [""])


@pytest.mark.parametrize("note", [DeletedModels, HardDeletedModels])
def test_deletion_is_serialized_under_any_filter(note: Any) -> None:
    stored = unit()
    result = assert_same([], [stored], [note(id=stored.id, profile=PROFILE)], filter=Filter(OTHER))
    row = result.store[stored.id]
    assert (row["deleted"], row["hard_deleted"]) == (note is DeletedModels, note is HardDeletedModels)


def statements(sync_filter: Filter | None) -> list[str]:
    """Return those of a serialization in a process that has serialized before."""
    device()
    with rolled_back():
        save_all([], [edited(unit(school_id=OTHER))])
        with CaptureQueriesContext(connection) as captured:
            serialize_into_store(PROFILE, sync_filter)
    return [query["sql"] for query in captured]


@pytest.mark.parametrize("sync_filter", FILTERS[2:5], ids=NAMES[2:5])
def test_nothing_edited_takes_one_statement_whatever_the_number_of_prefixes(sync_filter: Filter) -> None:
    found = statements(sync_filter)
    if dialect().returns_updated_rows:
        assert len(found) == 1, found
    else:
        assert len([sql for sql in found if "SAVEPOINT" not in sql]) == 6, found


@pytest.mark.parametrize("is_known", [False, True], ids=["a new process", "an instance that is gone"])
def test_instance_that_is_not_known_is_asked_for(is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    current = device()
    stranger = InstanceIDModel(id=OTHER) if is_known else None
    with rolled_back():
        monkeypatch.setattr(InstanceIDModel, "_cached_instance", stranger)
        serialize_into_store(PROFILE, Filter(SCHOOL_ID))
        assert InstanceIDModel.objects.get().counter == 1
        assert DatabaseMaxCounter.objects.values_list("instance_id", "partition", "counter").get() == (
            *(current, SCHOOL_ID),
            1,
        )


def test_instance_that_is_no_longer_current_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device()
    with rolled_back():
        former = InstanceIDModel.objects.get()
        monkeypatch.setenv("MORANGO_NODE_ID", "another machine")
        monkeypatch.setenv("MORANGO_SYSTEM_ID", "another machine")
        monkeypatch.setattr(InstanceIDModel, "_cached_instance", None)
        current = InstanceIDModel.get_or_create_current_instance()[0]
        monkeypatch.setattr(InstanceIDModel, "_cached_instance", former)
        assert former.id != current.id
        serialize_into_store(PROFILE)
        assert InstanceIDModel.objects.get(id=former.id).counter == 0
        assert DatabaseMaxCounter.objects.get().instance_id == current.id


def test_edits_of_code_that_serializes_are_serialized_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    school = unit()
    learner, lesson, gone = (
        build_store_row("learner", unit=school, dirty=False),
        build_store_row("lesson", unit=school, dirty=False),
        build_store_row("lesson", unit=school, dirty=False),
    )

    def serialize(self: Unit) -> Any:
        Learner.objects.filter(pk=learner.id).update(username="edited")
        Lesson.objects.get(pk=gone.id).delete()
        return SyncableModel.serialize(self)

    monkeypatch.setattr(Unit, "serialize", serialize)
    rows = [edited(school), *map(existing, (learner, lesson, gone))]
    result = assert_same(rows, [school, learner, lesson, gone])
    assert set(result.counters) == {school.id, learner.id, gone.id}
    assert result.store[gone.id]["deleted"]
