"""`deserialize_status` as a monitor: it sees all runs, and tells that all is well only if it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from morango.models.certificates import Filter

from morango_celery.management.json_output import RunJson, RunListJson
from morango_celery.models import Comparison, Run, Worker
from morango_celery.runs import completion
from morango_celery.runs.producer import create_run
from morango_celery.runs.workers import note_worker
from tests.integration.status_command import shown, told
from tests.support.factories import SCHOOL_ID, store_row
from tests.support.run_helpers import ago, carry_out, new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

STALLED, FAILED, LIMIT = 3, 4, 7


@pytest.fixture
def worker() -> Worker:
    note_worker("celery@here")
    return Worker.objects.get()


def failed_run(**columns: Any) -> Run:
    run = new_run()
    completion.fail(run.pk, RuntimeError("no"))
    Run.objects.filter(pk=run.pk).update(**columns)
    return run


def of_school(**columns: Any) -> Run:
    run = create_run(PROFILE, Filter(SCHOOL_ID), serialize_first=False, session_notified=True)
    Run.objects.filter(pk=run.pk).update(**columns)
    return run


def in_error(number: int) -> None:
    for _ in range(number):
        store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y"})


@pytest.mark.usefixtures("worker")
class TestFailures:
    def test_failed_run_counts_however_many_came_after_it(self) -> None:
        failed = of_school(state=Run.State.FAILED, finished_at=ago(500_000))
        for _ in range(25):
            Run.objects.create(profile=PROFILE, filter="x", state=Run.State.COMPLETED, finished_at=ago(1))

        code, text = shown()

        assert code == FAILED
        assert f"\nFAILED, and made good by no later run: {failed.pk}\n" in text
        assert told()["failed"] == [failed.pk]
        assert told()["status"] == "failed"

    def test_failures_before_since_are_left_out(self) -> None:
        failed_run(finished_at=ago(7200))
        an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
        assert [shown("--since", text)[0] for text in ("3h", "1h", an_hour_ago.isoformat())] == [4, 0, 0]
        assert shown("--since", f"{an_hour_ago - timedelta(hours=2):%Y-%m-%d %H:%M}")[0] == FAILED

    def test_run_of_the_whole_profile_makes_one_of_a_filter_good(self) -> None:
        of_school(state=Run.State.FAILED, finished_at=ago(10))
        assert shown()[0] == FAILED
        carry_out()
        assert shown()[0] == 0

    def test_run_that_only_retries_errors_makes_no_failed_run_good(self) -> None:
        failed_run()
        carry_out(new_run(retry_errors=True))
        assert shown()[0] == FAILED

    def test_run_in_which_every_record_failed_is_a_failure_until_records_are_saved(self) -> None:
        # Given a run with one record, which fails
        broken = store_row("unit", name=None)
        run, _ = carry_out()

        assert (shown(str(run.pk))[0], shown()[0]) == (FAILED, FAILED)
        assert told()["fruitless"] == [run.pk]
        assert f"EVERY RECORD FAILED, and no later run saved any: {run.pk}" in shown()[1]

        # When it fails once more, and when errors are left out
        again, _ = carry_out()
        carry_out(new_run(skip_erroring=True))
        assert told()["fruitless"] == [run.pk, again.pk]

        # Then only a run that saves records makes that good
        store_row("unit")
        carry_out()
        assert shown()[0] == 0
        assert broken.pk is not None

    def test_retry_of_errors_that_saves_none_is_no_failure_of_its_own(self) -> None:
        # Given a run that saved one record, while another one is in error
        store_row("unit", name=None)
        store_row("unit")
        carry_out()

        # When the record in error is tried again, in vain
        again, _ = carry_out(new_run(retry_errors=True))

        assert (again.failed, again.done) == (1, 1)
        assert told()["fruitless"] == []
        assert shown()[0] == 0

    def test_sync_that_saves_records_makes_a_fruitless_run_of_the_whole_profile_good(self) -> None:
        store_row("unit", name=None)
        carry_out()
        assert shown()[0] == FAILED

        store_row("unit")
        carry_out(of_school())

        assert shown()[0] == 0

    @pytest.mark.parametrize(("sync_filter", "code"), [(f"{SCHOOL_ID}:user", 0), ("0b" * 16, FAILED)])
    def test_run_of_a_narrower_filter_that_saves_makes_a_fruitless_one_good(
        self, sync_filter: str, code: int
    ) -> None:
        of_school(state=Run.State.COMPLETED, failed=1, records=1)
        Run.objects.create(profile=PROFILE, filter=sync_filter, state=Run.State.COMPLETED, records=1, saved=1)

        assert shown()[0] == code

    def test_difference_that_a_comparison_found_is_told(self) -> None:
        columns = {"profile": PROFILE, "state": "completed", "finished_at": ago(100_000)}
        Comparison.objects.create(transfer_session_id="1" * 32, differences=0, **columns)
        assert shown()[0] == 0
        Comparison.objects.create(transfer_session_id="2" * 32, differences=3, **columns)
        code, text = shown()
        assert (code, "DIFFERENT from Morango: 1 compared sync" in text) == (LIMIT, True)
        assert shown("--since=1d")[0] == 0


class TestLimits:
    @pytest.fixture(autouse=True)
    def _worker(self, worker: Worker) -> None:
        pass

    def test_more_records_in_error_than_allowed_are_told(self) -> None:
        in_error(3)
        assert [shown(f"--max-failed={number}")[0] for number in (3, 2, 0)] == [0, LIMIT, LIMIT]
        assert "3 records in error now: more than 2" in shown("--max-failed=2")[1]
        assert told()["in_error"] == 3
        assert shown()[0] == 0

    def test_more_failed_records_of_a_run_than_allowed_are_told(self) -> None:
        run = new_run(state=Run.State.COMPLETED, finished_at=ago(1), records=9, saved=6, failed=3)
        assert [shown(str(run.pk), f"--max-failed={number}")[0] for number in (3, 2)] == [0, LIMIT]

    def test_run_that_waits_for_a_worker_for_too_long_is_told(self) -> None:
        run = new_run(created_at=ago(100), last_activity_at=ago(100))
        for arguments in ((), (str(run.pk),)):
            assert [shown(*arguments, f"--max-pending={number}")[0] for number in (200, 50)] == [0, LIMIT]
        assert 100 <= told()["oldest_pending_seconds"] < 200
        assert "  has waited for a worker for 1 min 4" in shown(str(run.pk))[1]

        # ... but not one that waits for another run
        Run.objects.filter(pk=run.pk).update(blocked_by=new_run(state=Run.State.RUNNING))
        assert shown("--max-pending=50")[0] == shown(str(run.pk), "--max-pending=50")[0] == 0

    def test_worst_problem_comes_first(self) -> None:
        in_error(1)
        failed_run()
        run = new_run(last_activity_at=ago(10_000), created_at=ago(10_000))
        code, _ = shown("--max-failed=0")
        kinds = [problem["kind"] for problem in told("--max-failed=0")["problems"]]
        assert (code, kinds) == (STALLED, ["stalled", "failed", "limit"])
        assert told()["stalled"] == [run.pk]


class TestRecords:
    """Keys about records: each means one thing."""

    def test_total_is_unknown_where_waiting_records_are_not_counted(self) -> None:
        for _ in range(3):
            store_row("unit")
        run = new_run()
        assert told(str(run.pk))["records"]["total"] == 3
        assert told(str(run.pk))["records"]["handed_out"] == 0
        (listed,) = told()["runs"]
        assert listed["records"]["total"] is None

        carry_out(run)
        (listed,) = told()["runs"]
        assert told(str(run.pk))["records"]["total"] == listed["records"]["total"] == 3

    def test_records_that_others_have_done_are_told(self) -> None:
        run = new_run(state=Run.State.RUNNING, records=1000, saved=559, started_at=ago(10))
        assert "done by other runs" not in shown(str(run.pk))[1]
        Run.objects.filter(pk=run.pk).update(state=Run.State.COMPLETED, finished_at=ago(0))

        assert "  559 of 1,000 records: 559 saved, 441 done by other runs; " in shown(str(run.pk))[1]
        records = told(str(run.pk))["records"]
        assert (records["done"], records["done_by_others"]) == (559, 441)

        Run.objects.filter(pk=run.pk).update(state=Run.State.CANCELLED)
        assert told(str(run.pk))["records"]["done_by_others"] == 0

    def test_json_has_a_version(self) -> None:
        run = new_run()
        assert told()["version"] == told(str(run.pk))["version"] == 1
        assert set(told()) == set(RunListJson.__annotations__)
        assert set(told(str(run.pk))) == set(RunJson.__annotations__)
