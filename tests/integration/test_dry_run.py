"""Dry runs: their figures are those of the run that follows, and they write nothing."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from morango.models import DeletedModels, HardDeletedModels, Store
from redis import Redis

from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.management.dry_run_output import as_lines
from morango_celery.models import Batch, Run
from morango_celery.reading.filters import parse_filter
from morango_celery.runs.dry_run import DryRun, dry_run
from morango_celery.runs.producer import create_run
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.support import factories
from tests.support.dump import dump
from tests.support.run_helpers import ago, carry_out, edited_unit, new_run
from tests.support.sessions import other_session
from worker.school.models import PROFILE

FORECAST = ("deserialize", "--profile", PROFILE, "--dry-run")
EXCLUSIVE = {"BATCH_SIZE_RECORDS": 7, "EXCLUSIVE_MODELS": ["school.Unit", "school.Lesson"]}
IN_ERROR = {"deserialization_error": "x", "deserialization_exception": "y"}


def several_of_everything() -> None:
    """Store a school, a deep tree, deletions, local edits, records in error, and one without a model."""
    factories.fill_store(60)
    rows = [factories.store_row("unit")]
    for _ in range(12):
        rows.append(factories.store_row("unit", parent=rows[-1]))
    for _ in range(3):
        factories.store_row("unit", deleted=True)
        factories.store_row("unit", name=None, columns=IN_ERROR)
    for _ in range(2):
        columns = {"deserialization_error": "x", "deserialization_exception": QUARANTINED}
        factories.store_row("unit", columns=columns)
    edited_unit(factories.store_row("unit"), "made here")
    edited_unit(factories.store_row("unit", dirty=False), "made here")
    for notes, text in ((DeletedModels, "unit"), (HardDeletedModels, "lesson")):
        noted = factories.store_row(text, **({"unit": rows[0]} if text == "lesson" else {}))
        notes.objects.create(id=noted.id, profile=PROFILE)
    factories.store_row("spaceship", partition="5c")


def stages_of(stages: list[list[list[str]]], names: dict[str, str]) -> list[tuple[Counter[str], int]]:
    return [(Counter(names[i] for batch in stage for i in batch), len(stage)) for stage in stages]


@pytest.mark.django_db
@pytest.mark.usefixtures("serializable_in_a_transaction")
class TestFigures:
    @pytest.mark.parametrize(
        ("settings_of_batches", "options"),
        [
            ({"BATCH_SIZE_RECORDS": 3}, {}),
            (EXCLUSIVE, {}),
            (EXCLUSIVE, {"skip_erroring": True}),
            ({"BATCH_SIZE_RECORDS": 2}, {"retry_errors": True}),
            ({"BATCH_SIZE_RECORDS": 1000, "BATCH_SIZE_BYTES": 3_000}, {}),
            ({"BATCH_SIZE_RECORDS": 1000}, {}),
        ],
    )
    def test_stages_and_batches_are_those_of_the_run_that_follows(
        self, settings_of_batches: dict[str, Any], options: dict[str, Any], settings: Any
    ) -> None:
        settings.MORANGO_CELERY = settings_of_batches
        several_of_everything()
        names = dict(Store.objects.values_list("id", "model_name"))

        found = dry_run(PROFILE, None, **options)
        run, stages = carry_out(new_run(serialize_first=True, **options))

        first_pass = Batch.objects.filter(run=run, pass_number=1).values("stage").distinct().count()
        real = stages_of(stages[:first_pass], names)
        assert [(stage.models, stage.batches) for stage in found.stages] == real
        assert found.records == run.records

    def test_models_of_one_tree_are_counted_apart(self, batch_size: Callable[[int], None]) -> None:
        batch_size(2)
        sites = [build_zoo_row("region")]
        for number in range(8):
            sites.append(build_zoo_row(("town", "town", "region")[number % 3], parent=sites[-1]))
        Store.objects.bulk_create(sites)
        names = dict(Store.objects.values_list("id", "model_name"))

        found = dry_run(MODEL_ZOO, None)
        _, stages = carry_out(create_run(MODEL_ZOO, None, serialize_first=True, session_notified=True))

        assert [(stage.models, stage.batches) for stage in found.stages] == stages_of(stages, names)
        assert len(stages) == 5

    def test_errors_and_edits_are_told(self) -> None:
        several_of_everything()

        found = dry_run(PROFILE, None)

        assert (found.totals.in_error, found.totals.quarantined) == (3, 2)
        assert found.local_edits.models == {"unit": 2}
        assert (found.local_edits.deletions, found.local_edits.hard_deletions) == (1, 1)
        assert found.totals.merged == 2  # the edited and the deleted one that wait
        text = "\n".join(as_lines(found))
        assert "4 local edits into the Store: unit 2, deletions 1, deletions for good 1." in text
        assert "2 waiting records would be merged" in text
        assert "3 records in error would be tried again." in text
        assert "2 records are quarantined" in text

    def test_records_outside_the_filter_do_not_count(self) -> None:
        factories.store_row("unit")
        factories.store_row("unit", school_id="ab" * 16)

        assert dry_run(PROFILE, parse_filter("ab" * 16)).records == 1
        assert dry_run(PROFILE, None).records == 2

    def test_time_is_that_of_the_last_runs(self) -> None:
        factories.fill_store(20)
        assert (dry_run(PROFILE, None).seconds, dry_run(PROFILE, None).estimated_from) == (None, 0)

        for records, seconds in ((30, 6), (10, 2)):
            create_run(
                *(PROFILE, None),
                state=Run.State.COMPLETED,
                records=records,
                started_at=ago(100),
                finished_at=ago(100 - seconds),
            )

        found = dry_run(PROFILE, None)
        assert found.seconds == pytest.approx(4, rel=0.01)
        assert found.estimated_from == 2
        assert "the last 2 runs, it would take about 4.0 s." in "\n".join(as_lines(found))

    def test_run_that_it_would_wait_for_is_told(self) -> None:
        create_run(PROFILE, parse_filter("ab" * 16))
        assert dry_run(PROFILE, None).waits_for is None

        running = create_run(PROFILE, parse_filter("ab" * 16), state=Run.State.RUNNING)

        assert dry_run(PROFILE, None).waits_for == running.pk
        assert dry_run(PROFILE, parse_filter("cd" * 16)).waits_for is None
        assert dry_run(PROFILE, None, in_process=True).waits_for is None


def chain(length: int) -> list[Store]:
    rows = [factories.build_store_row("unit")]
    for _ in range(length - 1):
        rows.append(factories.build_store_row("unit", parent=rows[-1]))
    return rows


@pytest.mark.django_db
class TestCost:
    def test_statements_do_not_grow_with_records_batches_or_waves(
        self, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(5)

        def statements(length: int) -> tuple[int, DryRun]:
            Store.objects.all().delete()
            Store.objects.bulk_create(chain(length))
            factories.fill_store(length)
            with CaptureQueriesContext(connection) as queries:
                found = dry_run(PROFILE, None)
            return len(queries), found

        (few, small), (many, large) = statements(120), statements(360)

        assert len(large.stages) > len(small.stages) + 40
        assert many == few <= 20

    def test_small_run_costs_four_statements(self, django_assert_num_queries: Any) -> None:
        factories.fill_store(20)
        dry_run(PROFILE, None)

        with django_assert_num_queries(4):
            assert dry_run(PROFILE, None).batches == 1

    def test_memory_does_not_grow_with_the_records(
        self, batch_size: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("morango_celery.runs.dry_division.CHUNK_ROWS", 100)
        batch_size(100)

        def peak(number: int) -> int:
            Store.objects.bulk_create(chain(number))
            tracemalloc.start()
            try:
                assert dry_run(PROFILE, None).records >= number
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(100)  # fills caches
        few = peak(500)
        assert peak(5_000) < few + 200_000  # the others' ids alone have more


@pytest.mark.django_db(transaction=True)
def test_dry_run_writes_nothing(redis_url: str) -> None:
    several_of_everything()
    ledger = create_run(PROFILE, None)

    def everything() -> tuple[Any, ...]:
        sequences: list[Any] = []
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2")
                sequences = cursor.fetchall()
        return dump(), list(Run.objects.values()), list(Batch.objects.values()), sequences

    before = everything()
    call_command(*FORECAST, stdout=StringIO())
    call_command(*FORECAST, "--retry-errors", "--json", stdout=StringIO())

    assert everything() == before
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    assert list(Run.objects.all()) == [ledger]


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_dry_run_waits_for_nobody_and_holds_nobody_up() -> None:
    several_of_everything()
    with other_session() as other, connection.cursor() as cursor:
        other("BEGIN")
        other("SELECT pg_advisory_xact_lock(1), pg_advisory_xact_lock(2)")
        other("SELECT * FROM morango_store FOR UPDATE")
        cursor.execute("SET lock_timeout = '1ms'")
        try:
            locks: list[str] = []

            def look(execute: Any, sql: str, *arguments: Any) -> Any:
                result = execute(sql, *arguments)
                with connection.cursor() as looking:
                    looking.cursor.execute(
                        "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'"
                    )
                    locks.extend(mode for (mode,) in looking.cursor.fetchall())
                return result

            with connection.execute_wrapper(look):
                assert dry_run(PROFILE, None).records
            assert set(locks) == {"AccessShareLock"}
        finally:
            cursor.execute("RESET lock_timeout")
            other("COMMIT")


@pytest.mark.django_db
class TestCommand:
    def test_json_has_the_figures(self) -> None:
        factories.fill_store(20)
        out = StringIO()

        call_command(*FORECAST, "--json", "--filter", factories.SCHOOL_ID, stdout=out)

        found = json.loads(out.getvalue())
        assert found["filter"] == [factories.SCHOOL_ID]
        assert (found["records"], found["batches"], found["seconds"]) == (20, 1, None)
        (stage,) = found["stages"]
        assert (sum(stage["models"].values()), stage["batches"]) == (20, 1)

    def test_waves_of_a_tree_share_a_line(self, batch_size: Callable[[int], None]) -> None:
        batch_size(2)
        Store.objects.bulk_create(chain(7))
        out = StringIO()

        call_command(*FORECAST, stdout=out)

        first, _, row, last = out.getvalue().splitlines()
        assert first.startswith("A run of school would take 7 records, in 4 stages and 4 batches.")
        assert row.split() == ["1-4", "4", "7", "unit", "7"]
        assert last.startswith("Its time can't be estimated")

    def test_options_that_contradict_each_other_are_refused(self) -> None:
        with pytest.raises(CommandError) as refused:
            call_command("deserialize", "--profile", PROFILE, "--dry-run", "--wait")
        assert vars(refused.value)["returncode"] == 2
        assert not Run.objects.exists()
