"""Redis dies, forgets, fills up or can't be reached, at any moment of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from django.core.management import call_command
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store
from redis import Redis

import morango_celery
from morango_celery.api import wait_for
from morango_celery.models import Batch, Run
from morango_celery.tasks import CeleryDispatch
from tests.conftest import StartWorker
from tests.factories import SCHOOL_ID
from tests.faults.schools import School
from tests.faults.servers import Server, own_redis
from tests.integration.sync_state import is_at
from tests.integration.test_sync_controller import dequeued_session, proceed
from tests.processes import LoggedProcess
from tests.queues import lengths
from tests.waiting import child_that_waits_for_a_lock, held, until
from worker.celery import app
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

SWEEPING = "3"
"""RESEND_AFTER_SECONDS of a worker that is to find what got lost soon."""

FORGETS, REMEMBERS = False, True


@pytest.fixture(params=[FORGETS], ids=["without AOF"])
def redis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Redis of our own: the broker of this process, and of those that it starts."""

    def look_again() -> None:
        app._pool = app.amqp._producer_pool = None

    with own_redis(durable=request.param) as server:
        monkeypatch.setenv("CELERY_BROKER_URL", server.url)
        look_again()
        yield server
        monkeypatch.undo()
        look_again()


@pytest.fixture
def start_worker(redis: Server, celery_worker_process: StartWorker) -> StartWorker:
    def start(concurrency: int = 2, **environment: str) -> LoggedProcess:
        return celery_worker_process(
            concurrency,
            REDIS_URL=redis.url,
            DJANGO_SETTINGS_MODULE="tests.faults.outage_settings",
            MORANGO_CELERY_BATCH_SIZE_RECORDS="40",
            **environment,
        )

    return start


@pytest.fixture
def school(transactional_db: None) -> School:
    return School(rows=200)


def sent(school: School) -> Run:
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def first(model_name: str) -> str:
    return str(Store.objects.filter(model_name=model_name, dirty_bit=True).earliest("id").id)


def wait_for_a_batch(worker: LoggedProcess) -> None:
    worker.wait_until(lambda: child_that_waits_for_a_lock(worker.pid) is not None, "in the middle of a batch")


def messages(redis: Server) -> int:
    """How many wait, or are at a worker."""
    with Redis.from_url(redis.url) as client:
        return sum(lengths(client).values()) + int(client.hlen("unacked"))


def fill(redis: Server) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", 1)


def make_room(redis: Server) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", 0)


def assert_complete(school: School, run: Run) -> None:
    wait_for(run, 60)
    school.assert_intact(run)
    assert set(Batch.objects.filter(run=run).values_list("attempts", "state")) == {(1, Batch.State.DONE)}


@pytest.mark.parametrize(
    "redis",
    [FORGETS, pytest.param(REMEMBERS, marks=pytest.mark.at_length)],
    ids=["without AOF", "with AOF"],
    indirect=True,
)
def test_killed_in_the_middle_of_a_batch(school: School, redis: Server, start_worker: StartWorker) -> None:
    # Given a batch under way, and others that wait
    worker = start_worker(concurrency=1, RESEND_AFTER_SECONDS=SWEEPING)
    with held(*Store.objects.filter(model_name="attempt").values_list("id", flat=True)):
        run = sent(school)
        wait_for_a_batch(worker)
        assert messages(redis) > 1

        # When Redis is killed and started again
        redis.end()
        worker.wait_for_log("Connection to broker lost")
        redis.start()

    # Then the worker has found it, and what it has forgotten, without an operator
    assert_complete(school, run)
    assert worker.is_running


@pytest.mark.at_length
@pytest.mark.parametrize("by", ["a worker", "the command"])
def test_killed_together_with_the_worker(
    school: School, redis: Server, start_worker: StartWorker, by: str
) -> None:
    worker = start_worker(concurrency=1)
    with held(first("attempt")):
        run = sent(school)
        wait_for_a_batch(worker)
        worker.kill()
        redis.end()
    redis.start()
    assert messages(redis) == 0

    # A worker waits until the batches are overdue; who knows that all is lost needn't
    if by == "a worker":
        start_worker(RESEND_AFTER_SECONDS=SWEEPING)
    else:
        call_command("recover_runs", everything=True, verbosity=0)
        assert messages(redis) == Run.objects.get(pk=run.pk).open_batches
        start_worker()

    wait_for(run, 60)
    school.assert_intact(run)


def away(redis: Server) -> Callable[[], None]:
    redis.end()
    return redis.start


def full(redis: Server) -> Callable[[], None]:
    fill(redis)
    return lambda: make_room(redis)


@pytest.mark.at_length
@pytest.mark.parametrize("fault", [away, full])
def test_not_there_between_two_stages(
    school: School, redis: Server, start_worker: StartWorker, fault: Callable[[Server], Callable[[], None]]
) -> None:
    # Given the last batch of a stage, and a broker that fails while it is executed
    worker = start_worker(concurrency=1, RESEND_AFTER_SECONDS=SWEEPING)
    with held(first("unit")):
        run = sent(school)
        wait_for_a_batch(worker)
        mend = fault(redis)

    # When the next stage is opened, and can't be sent
    worker.wait_for_log("Nothing is lost")
    assert worker.is_running
    mend()

    # Then it is sent when there is a broker again
    assert_complete(school, run)
    assert worker.is_running


def by_a_sync(school: School) -> Run:
    call_command("loaddata", "scopedefinitions", verbosity=0)
    assert proceed(dequeued_session(200, push=True)) == transfer_statuses.STARTED
    return Run.objects.get()


def by_the_function(school: School) -> Run:
    return morango_celery.deserialize(PROFILE, SCHOOL_ID)


@pytest.mark.parametrize(
    ("begin", "fault"),
    [
        (by_a_sync, away),
        pytest.param(by_a_sync, full, marks=pytest.mark.at_length),
        pytest.param(by_the_function, away, marks=pytest.mark.at_length),
        pytest.param(by_the_function, full, marks=pytest.mark.at_length),
    ],
)
def test_not_there_when_a_run_is_asked_for(
    school: School,
    redis: Server,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    begin: Callable[[School], Run],
    fault: Callable[[Server], Callable[[], None]],
) -> None:
    # When a run is asked for while the broker doesn't take anything
    mend = fault(redis)
    with caplog.at_level(logging.ERROR):
        run = begin(school)

    # Then that isn't the caller's trouble, the log says what to do, and the run waits in the ledger
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("The broker can't be reached (")
    assert f"Nothing is lost: run {run.pk} of {PROFILE} is in the ledger, and recover_runs" in line
    run.refresh_from_db()
    assert (run.state, run.sent_at) == (Run.State.PENDING, None)

    # When it is back, and a worker too, with limits as by default
    mend()
    start_worker()

    # Then the run completes, and whoever waits for it is told
    assert_complete(school, run)
    if begin is by_a_sync:
        until(lambda: is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED), "told")
