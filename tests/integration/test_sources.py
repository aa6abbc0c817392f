"""Sources of records: both kinds stream under the same conditions, lazily, and nothing twice."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.deserialization import DeserializeTask, StoreModelSource
from morango_celery.reading.partitions import MorangoSource
from morango_celery.serialization import AppModelSource
from morango_celery.stream import Source
from tests.support import factories
from tests.support.processes import ROOT
from worker.school.models import PROFILE, Learner, Lesson, Unit

pytestmark = pytest.mark.django_db


class StoreRows:
    """The suite's access to Store rows: making them, and reading their source's stream."""

    source = StoreModelSource

    def make(self, model: Any, partition: str, *, dirty: bool = True) -> str:
        row = factories.store_row(model.morango_model_name, partition=partition, dirty=dirty)
        return str(row.id)

    def key(self, item: DeserializeTask) -> str:
        return str(item.store.id)


class AppRows:
    """The same for rows of the app tables."""

    source = AppModelSource

    def make(self, model: Any, partition: str, *, dirty: bool = True) -> str:
        values: dict[str, Any] = {"school_id": factories.SCHOOL_ID}
        if model is not Unit:
            values["unit"], _ = Unit.objects.get_or_create(name="School", school_id=factories.SCHOOL_ID)
        if model is Learner:
            values["username"] = f"learner {Learner.objects.count()}"
        row = model.objects.create(**values)
        model.syncing_objects.filter(pk=row.pk).update(
            update_dirty_bit_to=dirty, _morango_partition=partition
        )
        # The school itself is not what a test is about
        Unit.syncing_objects.filter(name="School").update(update_dirty_bit_to=False)
        return str(row.pk)

    def key(self, item: Any) -> str:
        return str(item.id)


@pytest.fixture(params=[StoreRows, AppRows], ids=["StoreModelSource", "AppModelSource"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param()


def keys(kind: Any, source: MorangoSource[Any]) -> list[str]:
    return [kind.key(item) for item in source.stream()]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sync_filter", [None, Filter("c a b"), Filter("")], ids=["none", "three", "empty"])
def test_partitions_come_in_order_within_each_model(kind: Any, order: Any, sync_filter: Any) -> None:
    # Given records of two models in three partitions, made in no order
    made = {
        (model, partition): kind.make(model, partition) for model in (Lesson, Unit) for partition in "bca"
    }

    found = keys(kind, kind.source(PROFILE, sync_filter, partition_order=order))

    # Then they come in foreign key order of their models whichever way the partitions go
    partitions = "abc" if order == "asc" else "cba"
    assert found == [made[model, partition] for model in (Unit, Lesson) for partition in partitions]


def test_order_that_is_none_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match='partition_order is "asc", "desc" or None, not \'up\''):
        kind.source(PROFILE, partition_order="up")


def test_clean_records_are_left_out_unless_they_are_asked_for(kind: Any) -> None:
    dirty = kind.make(Lesson, "a", dirty=True)
    clean = kind.make(Lesson, "b", dirty=False)

    assert keys(kind, kind.source(PROFILE)) == [dirty]
    everything = kind.source(PROFILE, Filter("a b"), dirty_only=False)
    assert keys(kind, everything) == [dirty, clean]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("text", ["5c 5c:a 5c:a:b", "5c:a:b 5c:a 5c", "5c 5c", "5c:a 5c:b 5c:a:b 5c:a"])
def test_overlapping_prefixes_yield_no_record_twice(kind: Any, order: Any, text: str) -> None:
    made = [kind.make(Lesson, partition) for partition in ("5c:a:b", "5c:a:c", "5c:b")]
    outside = kind.make(Lesson, "6d:a")

    found = keys(kind, kind.source(PROFILE, Filter(text), partition_order=order))

    assert sorted(found) == sorted(made)
    assert outside not in found


def test_prefixes_that_differ_in_case_yield_no_record_twice(kind: Any) -> None:
    # SQLite's LIKE takes them for the same, PostgreSQL's doesn't
    made = [kind.make(Lesson, partition) for partition in ("ab:1", "AB:2", "aB:3")]

    assert sorted(keys(kind, kind.source(PROFILE, Filter("ab AB aB")))) == sorted(made)


@pytest.mark.parametrize("wildcard", ["%", "_", "\\", "%%", "\\%"])
def test_wildcards_in_a_prefix_stand_for_themselves(kind: Any, wildcard: str) -> None:
    inside = kind.make(Lesson, f"5c{wildcard}:x")
    kind.make(Lesson, "5cx:x")
    kind.make(Lesson, "5c:x")

    assert keys(kind, kind.source(PROFILE, Filter(f"5c{wildcard}:"))) == [inside]


@pytest.mark.parametrize("sync_filter", [None, Filter("")])
def test_no_filter_and_the_empty_one_take_in_everything(kind: Any, sync_filter: Any) -> None:
    made = [kind.make(Lesson, partition) for partition in ("5c", "6d", "")]

    assert sorted(keys(kind, kind.source(PROFILE, sync_filter))) == sorted(made)


def test_one_condition_holds_for_all_prefixes(kind: Any) -> None:
    source: MorangoSource[Any] = kind.source(PROFILE, Filter("b a"), partition_order="desc")

    field = {StoreModelSource: "partition", AppModelSource: "_morango_partition"}[kind.source]
    one, other = (Q(**{f"{field}__startswith": prefix}) for prefix in "ab")
    assert source.condition == one | other
    assert isinstance(source, Source)


def queries_of(kind: Any, models_with_rows: int) -> int:
    """One for each model of the profile, and, where sizes are asked for first, one for each chunk of rows."""
    return 5 + (models_with_rows if kind.source is StoreModelSource else 0)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("number", [3, 1_000])
def test_prefixes_come_in_order_and_take_one_query_a_model(kind: Any, order: Any, number: int) -> None:
    prefixes = [f"{n:04}:" for n in range(number)]
    chosen = [prefixes[-1], prefixes[0], prefixes[1]]
    made = {
        partition: kind.make(Lesson, partition) for prefix in chosen for partition in (prefix, prefix + "x")
    }
    kind.make(Lesson, "0000")

    with CaptureQueriesContext(connection) as queries:
        found = keys(kind, kind.source(PROFILE, Filter("\n".join(prefixes)), partition_order=order))

    assert found == [made[partition] for partition in sorted(made, reverse=order == "desc")]
    assert len(queries) == queries_of(kind, 1)


def test_each_iteration_asks_the_database_anew(kind: Any) -> None:
    source = kind.source(PROFILE)
    assert keys(kind, source) == []

    made = kind.make(Lesson, "a")

    assert keys(kind, source) == [made] == keys(kind, source)


def test_query_is_sent_only_when_its_records_are_wanted(kind: Any) -> None:
    made = [kind.make(Unit, "a"), kind.make(Lesson, "a")]

    with CaptureQueriesContext(connection) as queries:
        stream = kind.source(PROFILE).stream()
        assert len(queries) == 0
        assert kind.key(next(stream)) == made[0]
        assert len(queries) == queries_of(kind, 1) - 4
        assert list(map(kind.key, stream)) == made[1:]

    assert len(queries) == queries_of(kind, 2)


def test_carriers_hold_the_whole_store_row() -> None:
    row = factories.store_row("lesson", title="Fractions")

    (carrier,) = StoreModelSource(PROFILE).stream()

    assert isinstance(carrier, DeserializeTask)
    with CaptureQueriesContext(connection) as queries:
        for field in Store._meta.concrete_fields:
            assert getattr(carrier.store, field.attname) == getattr(row, field.attname)
        assert carrier.model is Lesson
    assert len(queries) == 0


def test_app_models_come_as_carriers_of_their_values() -> None:
    learner_id = AppRows().make(Learner, "a")

    (carrier,) = AppModelSource(PROFILE).stream()

    assert (carrier.model, carrier.id, carrier.obj.partition) == (Learner, learner_id, "a")
    assert dict(zip(carrier.obj.names, carrier.obj.values, strict=True)) == Learner.objects.get().serialize()


@pytest.fixture
def with_and_without_error() -> dict[str | None, str]:
    return {
        error: factories.store_row(
            "lesson", partition=f"a{number}", columns={"deserialization_error": error}
        ).id
        for number, error in enumerate((None, "", "It is bad."))
    }


def test_null_and_empty_text_are_no_error(with_and_without_error: dict[str | None, str]) -> None:
    found = keys(StoreRows(), StoreModelSource(PROFILE, skip_errored=True))

    assert found == [with_and_without_error[None], with_and_without_error[""]]


def test_records_in_error_can_be_asked_for(with_and_without_error: dict[str | None, str]) -> None:
    source = StoreModelSource(PROFILE)

    assert keys(StoreRows(), source) == list(with_and_without_error.values())


def test_other_profiles_and_unregistered_models_are_not_streamed() -> None:
    factories.store_row("lesson", profile="facilitydata")
    factories.store_row("spaceship", partition="a")

    assert list(StoreModelSource(PROFILE).stream()) == []
    assert StoreModelSource(PROFILE).records().count() == 1


def test_models_can_be_chosen_and_come_in_the_order_given() -> None:
    unit, lesson = factories.store_row("unit"), factories.store_row("lesson")
    factories.store_row("attempt", learner_id="5c" * 16)

    source = StoreModelSource(PROFILE, models=[Lesson, Unit])

    assert keys(StoreRows(), source) == [lesson.id, unit.id]


def test_ids_come_in_the_same_order_without_the_records_contents() -> None:
    factories.fill_store(60)
    source = StoreModelSource(PROFILE, Filter(factories.SCHOOL_ID), partition_order="desc")

    with CaptureQueriesContext(connection) as queries:
        ids = list(source.ids())

    assert sorted(ids) == sorted(keys(StoreRows(), source))
    assert len(ids) == 60
    assert len(queries) == 5
    assert not [query["sql"] for query in queries if "serialized" in query["sql"]]
    assert all(set(store_id) <= set("0123456789abcdef") and len(store_id) == 32 for store_id in ids)


def test_ids_are_streamed_too() -> None:
    factories.fill_store(60)

    with CaptureQueriesContext(connection) as queries:
        assert len(list(islice(StoreModelSource(PROFILE).ids(), 1))) == 1

    assert len(queries) == 1


# 100,000 Store rows of 1,000 bytes, and as many app rows, in one statement each
MANY_ROWS = [
    """
    INSERT INTO morango_store (
        id, profile, model_name, partition, source_id, serialized, dirty_bit, deleted, hard_deleted,
        last_saved_instance, last_saved_counter, conflicting_serialized_data, _self_ref_fk
    )
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99999)
    SELECT {id}, 'school', 'unit', {partition}, '', {contents}, true, false, false, {id}, 1, '', ''
    FROM numbers
    """,
    """
    INSERT INTO school_unit (id, _morango_dirty_bit, _morango_source_id, _morango_partition, school_id, name)
    WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99999)
    SELECT {id}, true, '', {partition}, {id}, ''
    FROM numbers
    """,
]
EXPRESSIONS = {
    "postgresql": {
        "id": "lpad(n::text, 32, '0')::uuid",
        "partition": "lpad(n::text, 5, '0')",
        "contents": "repeat('x', 1000)",
    },
    "sqlite": {
        "id": "printf('%032d', n)",
        "partition": "printf('%05d', n)",
        "contents": "hex(zeroblob(500))",
    },
}

# Looks at the first item, when whoever fetches all at once has them, and then now and again
PEAKS = """
import django, psutil
django.setup()
from morango.models.certificates import Filter
from morango_celery.deserialization import StoreModelSource
from morango_celery.serialization import AppModelSource

process = psutil.Process()
for name, stream in (
    ("ids", lambda prefix: StoreModelSource("school", Filter(prefix)).ids()),
    ("records", lambda prefix: StoreModelSource("school", Filter(prefix)).stream()),
    ("app models", lambda prefix: AppModelSource("school", Filter(prefix)).stream()),
):
    for prefix in ("0", ""):
        peak_bytes = 0
        for number, _ in enumerate(stream(prefix)):
            if number % 1000 == 0:
                peak_bytes = max(peak_bytes, process.memory_info().rss)
        print(name, number + 1, peak_bytes, sep=",")
"""


@pytest.mark.django_db(transaction=True)
def test_memory_is_the_same_for_ten_times_as_many_records(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given 100,000 records
    with connection.cursor() as cursor:
        for statement in MANY_ROWS:
            cursor.execute(statement.format(**EXPRESSIONS[connection.vendor]))

    # When another process streams 10,000 of them, and then all
    monkeypatch.setenv("DATABASE_URL", database_url)
    done = subprocess.run(
        [sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )

    # Then its memory peaks as high; the ids alone would take ten MiB, the records hundreds
    assert done.returncode == 0, done.stderr
    peaks: dict[str, dict[int, int]] = {}
    for line in done.stdout.splitlines():
        name, number, peak_bytes = line.split(",")
        peaks.setdefault(name, {})[int(number)] = int(peak_bytes)
    assert peaks.keys() == {"ids", "records", "app models"}
    for name, measured in peaks.items():
        assert measured[100_000] - measured[10_000] < 4 * 2**20, name
