"""PostgreSQL goes away, cuts connections, refuses and cancels, at any moment of a run."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from django.core.management import call_command
from django.db import connection
from morango.models import Store

import morango_celery
from morango_celery.api import wait_for
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.producer import start
from tests.faults.databases import IDLE, IS_HELD_UP, WAITS_FOR_A_LOCK, Database
from tests.faults.recoveries import sent_again
from tests.faults.servers import Server, own_postgres
from tests.support.processes import LoggedProcess
from tests.support.schools import School
from tests.support.waiting import held, until
from tests.support.workers import StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

STALLED_SOON = "3"
"""STALLED_AFTER_SECONDS of a worker that is to find what got lost soon. It may send a batch twice: the second
message's attempt may then begin before the first one's is uncounted, and end before that can be."""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: Any) -> Iterator[Server]:
    """Start a PostgreSQL, with a database that has the tables."""
    with own_postgres() as server:
        Database(server, "postgres").ask("CREATE DATABASE tables")
        with django_db_blocker.unblock(), Database(server, "tables").used_here():
            call_command("migrate", verbosity=0)
        yield server


@pytest.fixture
def database(transactional_db: None, server: Server) -> Iterator[Database]:
    """Give each test a database of its own, in use by this process."""
    name = f"test{next(_numbers)}"
    server.start()  # a test that failed may have left it ended
    Database(server, "postgres").ask(f"CREATE DATABASE {name} TEMPLATE tables")
    database = Database(server, name)
    with database.used_here():
        yield database


@pytest.fixture
def school(database: Database) -> School:
    return School(rows=200)


@pytest.fixture
def start_worker(database: Database, celery_worker_process: StartWorker) -> StartWorker:
    def start(concurrency: int = 2, **environment: Any) -> LoggedProcess:
        return celery_worker_process(
            concurrency,
            DATABASE_URL=database.url,
            DJANGO_SETTINGS_MODULE="tests.faults.outage_settings",
            MORANGO_CELERY_BATCH_SIZE_RECORDS="40",
            **environment,
        )

    return start


def wait_for_first_recovery(worker: LoggedProcess) -> None:
    """Wait for a worker's first recovery. From then on it sends again what is `STALLED_SOON` alone."""
    worker.wait_for_log("succeeded in")


def sent(school: School) -> Run:
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def retries(worker: LoggedProcess) -> int:
    return worker.log().count("Retry in ")


def an_attempt(school: School) -> str:
    """Return a record of the last stage."""
    attempts = Store.objects.filter(model_name="attempt", partition__startswith=school.id)
    return str(attempts.earliest("id").id)


def assert_complete(
    school: School, run: Run, *, blameless: bool = True, recovering: LoggedProcess | None = None
) -> None:
    """
    :param blameless: whether each batch shows only the attempt that succeeded, for an outage is no record's
        fault. The database can't note that while it is away or read-only; then one fault costs one attempt
    :param recovering: a worker that takes work for `STALLED_SOON`: each message sent again may cost one, too
    """
    wait_for(run, 120)  # the second recovery finds what a fault left unsent, after a minute
    school.assert_intact(run)
    batches = Batch.objects.filter(run=run)
    assert set(batches.values_list("state", flat=True)) == {Batch.State.DONE}
    due = (1 if blameless else 2) + (sent_again(recovering) if recovering else 0)
    assert max(batches.values_list("attempts", flat=True)) <= due


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGQUIT, id="immediately"),
        pytest.param(signal.SIGINT, id="fast"),
    ],
)
def test_batch_is_retried_after_a_restart_of_postgresql(
    database: Database, school: School, start_worker: StartWorker, how: signal.Signals
) -> None:
    # Given a batch that has written some of its rows
    worker = start_worker(STALLED_AFTER_SECONDS=STALLED_SOON)
    with database.holding_up("AFTER INSERT ON school_lesson FOR EACH STATEMENT"):
        run = sent(school)
        until(lambda: database.workers(IS_HELD_UP), "in the middle of a batch")

        # When PostgreSQL ends under it, stays away for a while, and comes back
        connection.close()
        database.server.end(how)
        until(lambda: retries(worker), "noticed")
        database.server.start()

    # Then the batch is tried again
    assert_complete(school, run, blameless=False, recovering=worker)
    assert "The database is not available" in worker.log()


@pytest.mark.slow
def test_terminated_connections_are_not_held_against_a_batch(
    database: Database, school: School, start_worker: StartWorker
) -> None:
    # Given batches that get no further than to their first row
    worker = start_worker()
    wait_for_first_recovery(worker)
    with database.holding_up("BEFORE INSERT ON school_attempt FOR EACH ROW"):
        run = sent(school)

        # When their connections are cut each time they are there
        cut = 0
        while cut < 12:
            cut += until(lambda: database.cut(IS_HELD_UP), "in the middle of a batch")

    # Then none of the cuts is held against them
    assert_complete(school, run)
    assert retries(worker) == cut
    assert worker.is_running


MOMENTS = {
    "a run is being started": "BEFORE UPDATE OF state ON morango_celery_run"
    " FOR EACH ROW WHEN (OLD.state = 'pending')",
    "its first stage is being opened": "BEFORE INSERT ON morango_celery_batch"
    " FOR EACH ROW WHEN (NEW.stage = 1)",
    "an attempt is being counted": "BEFORE UPDATE OF attempts ON morango_celery_batch FOR EACH ROW",
    "a batch is being closed": "BEFORE UPDATE OF state ON morango_celery_batch FOR EACH ROW",
    "the next stage is being opened": "BEFORE INSERT ON morango_celery_batch"
    " FOR EACH ROW WHEN (NEW.stage = 2)",
    "one of its batches was sent, the others not": "BEFORE UPDATE OF sent_at ON morango_celery_batch"
    " FOR EACH ROW WHEN (NEW.stage = 2 AND OLD.sent_at IS NULL)",
    "the run is ending": "BEFORE UPDATE OF state ON morango_celery_run"
    " FOR EACH ROW WHEN (NEW.state = 'completed' AND OLD.state = 'running')",
    "it is being followed up": "BEFORE UPDATE OF finalized ON morango_celery_run"
    " FOR EACH ROW WHEN (NEW.finalized)",
}
SAMPLE = ("its first stage is being opened", "one of its batches was sent, the others not")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "restart",
    [
        pytest.param(False, id="connection cut"),
        pytest.param(True, id="restarted", marks=pytest.mark.slow),
    ],
)
def test_run_completes_wherever_the_database_goes_away(
    database: Database, start_worker: StartWorker, make_school: Any, exhaustive: bool, restart: bool
) -> None:
    worker = start_worker(STALLED_AFTER_SECONDS=STALLED_SOON)
    for moment, trigger in MOMENTS.items():
        if not exhaustive and moment not in SAMPLE:
            continue
        school = make_school(60)
        with database.holding_up(trigger):
            run = sent(school)
            until(lambda: database.workers(IS_HELD_UP), moment)
            if restart:
                connection.close()
                database.server.end(signal.SIGQUIT)
                database.server.start()
            else:
                assert database.cut(IS_HELD_UP)

        assert_complete(school, run, blameless=False, recovering=worker)
        until(lambda: Run.objects.get(pk=run.pk).finalized, "followed up")  # noqa: B023
        database.forget_moments()
    assert worker.is_running


@pytest.mark.parametrize("task", [pytest.param("start_run", marks=pytest.mark.slow), "deserialize_batch"])
def test_connection_that_was_cut_between_two_tasks_costs_a_retry(
    database: Database, school: School, start_worker: StartWorker, task: str
) -> None:
    # Given a worker that keeps its connection from one task to the next
    worker = start_worker(concurrency=1)
    until(lambda: database.workers(IDLE), "connected")
    wait_for_first_recovery(worker)
    run = school.new_run()

    # When that is cut while nothing happens
    if task == "deserialize_batch":
        start(run.pk)
    assert database.cut() == 1
    assert morango_celery.recover_runs(all_unfinished=True) > 0

    # Then the first task to find out is tried again
    assert_complete(school, run)
    assert retries(worker) == 1


@pytest.mark.slow
def test_deadlock_ends_the_batch_and_not_the_other(
    database: Database, school: School, start_worker: StartWorker
) -> None:
    # Given another session that holds an app row, and a batch that holds its Store row and wants it
    worker = start_worker()
    wait_for_first_recovery(worker)
    ((lesson,),) = database.ask("SELECT id FROM school_lesson WHERE title = 'old' ORDER BY id LIMIT 1")
    with database.session() as other:
        other.execute("SET deadlock_timeout = '1h'")  # the worker is the one to find out
        other.execute("SELECT 1 FROM school_lesson WHERE id = %s FOR UPDATE", [lesson])
        run = sent(school)
        until(lambda: database.workers(WAITS_FOR_A_LOCK), "waiting")

        # When the other wants the Store row too
        other.execute("SELECT 1 FROM morango_store WHERE id = %s FOR UPDATE", [lesson])

    # Then the batch has given way as a whole, and is tried again
    assert_complete(school, run)
    assert retries(worker) == 1
    assert "deadlock detected" in worker.log()


@pytest.mark.slow
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("processes", [1, 2])
def test_serialization_failure_is_retried(
    database: Database, school: School, start_worker: StartWorker, level: str, processes: int
) -> None:
    # Given workers whose transactions want to see one moment only, and a batch that waits for a record
    database.configure("default_transaction_isolation", level)
    worker = start_worker(processes, STALLED_AFTER_SECONDS=STALLED_SOON)
    with database.session() as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        other.execute("UPDATE morango_store SET serialized = serialized WHERE id = %s", [an_attempt(school)])
        run = sent(school)
        until(lambda: database.workers(WAITS_FOR_A_LOCK), "waiting")

        # When somebody else has changed it in the meantime
        other.connection.commit()

    # Then it is tried again; two processes fail for each other's sake too, and for a message that came twice
    assert_complete(school, run, blameless=processes == 1, recovering=worker)
    assert "could not serialize access due to concurrent update" in worker.log()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message", "blameless"),
    [
        ("lock_timeout", "canceling statement due to lock timeout", True),
        # A record that takes too long would look the same
        ("statement_timeout", "canceling statement due to statement timeout", False),
    ],
)
def test_batch_that_waits_too_long_is_tried_again(
    database: Database, school: School, start_worker: StartWorker, setting: str, message: str, blameless: bool
) -> None:
    database.configure(setting, "1s")
    worker = start_worker()
    wait_for_first_recovery(worker)
    with held(an_attempt(school)):
        run = sent(school)
        worker.wait_for_log(message)

    assert_complete(school, run, blameless=blameless)


@pytest.mark.slow
def test_run_waits_until_there_are_connections_again(
    database: Database, school: School, start_worker: StartWorker
) -> None:
    # Given others that have taken every connection there is, those of the worker too
    worker = start_worker()  # which recovers once a minute: it doesn't connect again while they do
    wait_for_first_recovery(worker)
    run = school.new_run()
    with contextlib.ExitStack() as others:
        assert database.cut() > 0
        while database.has_room():
            with contextlib.suppress(psycopg2.OperationalError):  # that look's connection may not be free yet
                others.enter_context(database.session())

        # When there is something to do
        assert CeleryDispatch().start(run)
        worker.wait_for_log("too many clients")

    # Then it is done when they have left
    assert_complete(school, run)
    assert "WorkerLostError" not in worker.log()


@pytest.mark.slow
def test_run_waits_while_the_database_is_read_only(
    database: Database, school: School, start_worker: StartWorker
) -> None:
    # Given a batch under way, and a server that takes no more changes, as before a switch-over
    worker = start_worker(STALLED_AFTER_SECONDS=STALLED_SOON)
    with held(an_attempt(school)):
        run = sent(school)
        until(lambda: database.workers(WAITS_FOR_A_LOCK), "in the middle of a batch")
        database.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        database.ask("SELECT pg_reload_conf()")
        # Who is connected has been told then, and minds it from its next transaction on
        until(lambda: database.ask("SHOW default_transaction_read_only") == [("on",)], "read-only")
    try:
        worker.wait_for_log("read-only transaction")
        assert not Run.objects.get(pk=run.pk).has_ended
    finally:
        database.ask("ALTER SYSTEM RESET default_transaction_read_only")
        database.ask("SELECT pg_reload_conf()")

    # Then the run goes on when it does again
    assert_complete(school, run, blameless=False, recovering=worker)
