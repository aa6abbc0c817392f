"""Prepared statements of the ledger, which equal Django's own queries."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery import clock
from morango_celery.db.prepared import (
    Columns,
    anything,
    concrete_fields,
    kept,
    number,
    selecting,
    text,
    updating,
)
from morango_celery.models import Batch, Run
from morango_celery.reading.prefixes import outermost, starts_with_any
from morango_celery.runs import plan
from morango_celery.runs.execution import LONG_COLUMNS
from morango_celery.runs.inserts import insert
from morango_celery.runs.opening import attempt_opening
from morango_celery.runs.overdue import RUN, lock_opened, note_start_sent, read_run
from morango_celery.runs.producer import Progress, create_run
from tests.support.factories import build_store_row
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db


def values(run: Run) -> dict[str, Any]:
    return {name: value for name, value in vars(run).items() if not name.startswith("_")}


@pytest.fixture
def run() -> Run:
    """Return a run with a value in each kind of column."""
    return Run.objects.create(
        profile="school",
        filter="a\nb",
        error="100 % \x01mark00000 'quoted' \\",
        transfer_session_id=uuid.uuid4().hex,
        retry_of=new_run(),
        stage_models="unit + lesson",
        previous_retryable_failures=3,
        step=-2_147_000_000,
        finished_at=clock.now(60),
    )


def test_run_is_read_as_django_reads_it(run: Run) -> None:
    expected = values(Run.objects.get(pk=run.pk))

    assert values(read_run(run.pk)) == expected
    with transaction.atomic():
        assert values(lock_opened(run.pk)) == expected


@pytest.mark.parametrize("read", [read_run, lock_opened])
def test_run_that_was_deleted_is_missed(read: Any) -> None:
    with transaction.atomic(), pytest.raises(Run.DoesNotExist):
        read(-1)


def test_run_is_saved_as_django_saves_it(run: Run) -> None:
    changed = Run.objects.get(pk=run.pk)
    changed.transfer_session_id = uuid.uuid4().hex
    changed.retry_of = None
    changed.error += " more"
    changed.session_notified = False
    changed.finished_at = None
    expected = {**values(changed), "last_activity_at": None}

    changed.save_active()

    found = Run.objects.get(pk=run.pk)
    assert found.last_activity_at is not None
    assert {**values(found), "last_activity_at": None} == expected
    assert changed.last_activity_at == found.last_activity_at  # read when it is asked for


def new_rows() -> list[Run | Batch]:
    run = Run(
        profile="school",
        filter="a\nb",
        error="100 % \x01mark00000 'quoted' \\",
        transfer_session_id=uuid.uuid4().hex,
        retry_of=new_run(),
        step=-2_147_000_000,
        finished_at=clock.now(60),
        overdue_at=timezone.now(),
    )
    ids = [uuid.uuid4().hex, "%s"]
    batch = Batch.of(new_run(), 1, ids, attempts=1, attempted_at=clock.now(), overdue_at=clock.now(15))
    return [run, batch, Run(profile="school", filter=None), Batch.of(new_run(), 1, [])]


@pytest.mark.parametrize("place", range(4))
def test_row_is_inserted_as_django_inserts_it(place: int) -> None:
    row = new_rows()[place]
    by_django = copy.copy(row)
    if isinstance(by_django, Run):  # what is unique
        by_django.transfer_session_id = None
    else:
        by_django.number = 2

    insert(row)
    by_django.save(force_insert=True)

    rows: Any = type(row).objects
    inserted, expected = (rows.values().get(pk=pk) for pk in (row.pk, by_django.pk))
    differing = {name for name, value in inserted.items() if value != expected[name]}
    times = {name for name in differing if name.endswith("_at")}
    assert all(abs(inserted[name] - expected[name]).total_seconds() < 60 for name in times)
    assert differing - times <= {"id", "transfer_session_id", "number"}
    assert {name for name, value in vars(row).items() if hasattr(value, "resolve_expression")} == set()
    assert (rows.get(pk=row.pk), row._state.adding) == (row, False)


def test_deferred_columns_are_not_written(run: Run) -> None:
    part = Run.objects.defer(*LONG_COLUMNS).get(pk=run.pk)
    Run.objects.filter(pk=run.pk).update(error="of others")
    part.step = 5

    part.save_active()

    assert Run.objects.values_list("error", "step").get(pk=run.pk) == ("of others", 5)


def test_instance_without_columns_reads_them_when_asked(run: Run) -> None:
    columns = Columns(Run, without=LONG_COLUMNS)
    row = selecting(Run.objects.filter(pk=number(0)).values_list(*columns.names)).row(run.pk)
    assert row is not None

    part = columns.instance(row)

    assert part.get_deferred_fields() == set(LONG_COLUMNS)
    assert part.error == run.error


@pytest.mark.usefixtures("serializable_in_a_transaction")
def test_settings_that_change_are_heeded(settings: Any) -> None:
    run = new_run()
    seconds_left = []
    for seconds in (900, 6):
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "STALLED_AFTER_SECONDS": seconds}
        Run.objects.update(attempts=0, open_batches=0)

        found = attempt_opening(run.pk, Progress).run

        assert found.overdue_at is not None
        seconds_left.append((found.overdue_at - found.last_activity_at).total_seconds())
    assert seconds_left == [pytest.approx(15, abs=1), pytest.approx(2, abs=1)]


def test_marks_are_told_from_values() -> None:
    rows = Batch.objects.filter(pk=number(0), attempted_by=text(1))
    statement = updating(rows, {"last_error": anything(2), "size": number(3), "suspect": True})
    batch = Batch.objects.create(run=new_run(), stage=1, number=1, size=1, attempted_by="me", ids_sha256="")

    assert statement.execute(batch.pk, "you", "", 4) == 0
    assert statement.execute(batch.pk, "me", "late", 5) == 1

    batch.refresh_from_db()
    assert (batch.last_error, batch.size, batch.suspect) == ("late", 5, True)


@pytest.mark.needs_postgresql
def test_statement_is_compiled_once() -> None:
    compiled = []

    @kept
    def make(name: str) -> Any:
        compiled.append(name)
        return selecting(Run.objects.filter(pk=number(0)).values_list(name))

    run = new_run()
    with CaptureQueriesContext(connection) as queries:
        found = [make(name).row(run.pk) for name in ("profile", "state", "profile")]

    assert found == [("school",), ("pending",), ("school",)]
    assert (compiled, len(queries)) == (["profile", "state"], 3)


def test_all_columns_of_a_run_are_read() -> None:
    assert set(RUN.names) == {field.attname for field in concrete_fields(Run)}


class TestNotingThatARunWasSent:
    def test_sending_of_a_pending_run_is_noted(self) -> None:
        run = new_run()
        note_start_sent(run)
        run.refresh_from_db()
        assert run.sent_at is not None
        assert run.overdue_at is not None
        assert (run.overdue_at - run.sent_at).total_seconds() == pytest.approx(900, abs=1)

    @pytest.mark.parametrize("begun", [{"attempts": 1}, {"stage": 1}, {"state": Run.State.RUNNING}])
    def test_sending_of_a_run_begun_since_is_not_noted(self, begun: dict[str, Any]) -> None:
        run = new_run()
        Run.objects.update(**begun)
        note_start_sent(run)
        run.refresh_from_db()
        assert run.sent_at is None


NAMES = ["a_c", "a%c", "a\\c", "abc", "%", "_", "é", "'", "s%s", "\x01mark00001"]


def under(*prefixes: str) -> list[str]:
    """Return the partitions that begin with one of the prefixes."""
    profile, *marks = map(text, range(len(prefixes) + 1))
    found = Store.objects.filter(starts_with_any("partition", marks), profile=profile)
    statement = selecting(found.values_list("profile", "partition"))
    rows = statement.rows(("partition", "profile"), PROFILE, *prefixes)
    assert {profile for _, profile in rows} <= {PROFILE}
    return sorted(partition for partition, _ in rows)


def test_texts_are_taken_literally_as_beginnings_too() -> None:
    Store.objects.bulk_create([build_store_row("unit", partition=name) for name in NAMES])
    Store.objects.bulk_create([build_store_row("unit", partition="abc", profile="another")])
    for name in NAMES:
        assert under(name) == [name]
    assert under("a_", "s%s") == ["a_c", "s%s"]
    assert under("nothing", "é") == ["é"]
    assert under("a") == ["a%c", "a\\c", "a_c", "abc"]


def test_marks_of_texts_are_in_order_and_none_is_within_another() -> None:
    marks = [text(place) for place in range(1_001)]

    assert outermost(marks) == marks
    assert list(Filter("\n".join(marks))) == marks


def test_query_for_what_waits_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    schools = [f"{number:032x}" for number in range(3)]
    rows = [build_store_row("lesson", unit_id="ab" * 16, school_id=school) for school in schools]
    Store.objects.bulk_create([*rows, build_store_row("unit")])
    plan._first_waiting_of.cache_clear()
    steps = plan.steps(PROFILE)
    for school, row in zip(schools, rows, strict=True):
        run = create_run(PROFILE, Filter(school))
        found = plan.remainder(run, steps, rows=10, size_bytes=10_000)
        assert found is not None
        assert [store_id for store_id, _ in found.sized_ids] == [row.id]
        monkeypatch.setattr(plan, "PendingRecordSource", None)  # from the second one on nothing is made
