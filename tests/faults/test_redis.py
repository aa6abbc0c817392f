"""Redis dies, forgets, fills up or can't be reached, at any moment of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
from django.core.management import call_command
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store
from redis import Redis

from morango_celery.api import wait_for
from morango_celery.conf import settings
from morango_celery.models import Batch, Run
from tests.faults.conftest import StartWorkerThere
from tests.faults.outages import (
    STALLED_SOON,
    assert_complete,
    by_a_sync,
    by_the_function,
    first,
    messages,
    sent,
    wait_for_a_batch,
)
from tests.faults.proxy import proxy_to
from tests.faults.servers import Server
from tests.support import factories
from tests.support.processes import LoggedProcess
from tests.support.schools import School
from tests.support.sync_state import is_at
from tests.support.waiting import held, until
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

FORGETS, REMEMBERS = False, True

LOSSES = 20


@pytest.fixture
def school(transactional_db: None) -> School:
    return School(rows=200)


def losses_heard_of(worker: LoggedProcess) -> int:
    """Return the number of losses in a worker's log, while it connected and later."""
    log = worker.log()
    return log.count("Connection to broker lost") + log.count("Cannot connect to redis")


def has_heard_of_more_than(losses: int, worker: LoggedProcess) -> bool:
    return losses_heard_of(worker) > losses


def has_another_client(redis: Server) -> bool:
    with Redis.from_url(redis.url) as client:
        return len(client.client_list()) > 1


def fill(redis: Server) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", 1)


def make_room(redis: Server) -> None:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize(
    "redis",
    [FORGETS, pytest.param(REMEMBERS, marks=pytest.mark.slow)],
    ids=["without AOF", "with AOF"],
    indirect=True,
)
def test_run_completes_after_redis_is_killed_in_the_middle_of_a_batch(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a batch under way, and others that wait
    worker = start_worker(concurrency=1, STALLED_AFTER_SECONDS=STALLED_SOON)
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


def test_worker_prefetches_no_message(school: School, redis: Server, start_worker: StartWorkerThere) -> None:
    # Given a worker whose only process is in the middle of a batch, and others that wait
    worker = start_worker(concurrency=1, STALLED_AFTER_SECONDS=STALLED_SOON)
    with held(*Store.objects.filter(model_name="attempt").values_list("id", flat=True)):
        run = sent(school)
        wait_for_a_batch(worker)
        waiting = messages(redis)
        assert waiting > 2

        # When it has had time to take more of them: long enough to ask for recovery again and again
        worker.wait_until(lambda: messages(redis) > waiting + 5, "recovering")

        # Then it hasn't: what it would have in hand when it is killed comes back late
        with Redis.from_url(redis.url) as client:
            assert client.hlen("unacked") == 1
    assert_complete(school, run)


def test_worker_survives_a_loss_that_it_hears_of_while_it_waits_for_messages(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker with a batch, and processes to spare, so that it waits for messages too
    with proxy_to(redis.url) as proxy:
        worker = start_worker(4, through=proxy.url, STALLED_AFTER_SECONDS=STALLED_SOON)
        with held(first("learner")):
            run = sent(school)
            wait_for_a_batch(worker)

            # When Redis goes away, and the connection for messages is the last to say so
            proxy.refuse()
            assert proxy.swallow(saying=b"BRPOP") == 1
            proxy.cut(but=b"BRPOP")
            worker.wait_for_log("Cannot connect to redis")
            proxy.cut()
            proxy.accept()

        # Then the worker connects again, and goes on
        assert_complete(school, run)
        assert worker.is_running


def test_batch_that_celery_cancels_when_redis_is_lost_is_not_blamed(
    redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker that cancels what it can't acknowledge any more, as Celery's log advises
    school = School(rows=10)
    slow = factories.store_row("learner", unit_id=first("unit"), school_id=school.id, username="sleeps")
    school.expected = school.undisturbed()
    options = {"CANCEL_ON_CONNECTION_LOSS": "1", "STALLED_AFTER_SECONDS": STALLED_SOON, "POISON_APP": "1"}
    worker = start_worker(2, **options)
    run = sent(school)
    batches = run.batches.filter(state=Batch.State.OPEN, attempts__gt=0).exclude(attempted_by="")
    begun = until(batches.first, "in the middle of a batch").attempted_at

    # When it is cancelled as often as a batch may end its worker
    for number in range(1, settings.MAX_ATTEMPTS + 1):
        redis.end()
        worker.wait_for_log("Connection to broker lost", times=number)
        redis.start()
        batch = until(batches.filter(attempted_at__gt=begun).first, "begun again")
        begun = batch.attempted_at

        # Then that is no attempt
        assert batch.attempts == 1

    # ... and nothing is wrong with the record
    worker.kill()
    start_worker(1, STALLED_AFTER_SECONDS=STALLED_SOON)
    wait_for(run, 60)
    school.assert_intact(run)
    slow.refresh_from_db()
    assert (slow.dirty_bit, slow.deserialization_error) == (False, None)
    assert not run.batches.filter(state=Batch.State.SPLIT).exists()


@pytest.mark.slow
def test_worker_survives_any_number_of_losses(
    school: School, redis: Server, start_worker: StartWorkerThere
) -> None:
    # Given a worker with a batch under way
    worker = start_worker(4, STALLED_AFTER_SECONDS=STALLED_SOON)
    with held(first("learner")):
        run = sent(school)
        wait_for_a_batch(worker)

        # When Redis is killed and started again and again, every other time while the worker connects
        for number in range(LOSSES):
            losses = losses_heard_of(worker)
            redis.end()
            until(partial(has_heard_of_more_than, losses, worker), "heard of it")
            received = worker.log().count("received")
            redis.start()
            if number % 2:
                until(partial(has_another_client, redis), "connected")
            else:
                worker.wait_for_log("received", times=received + 1)

    # Then it is the same worker that completes the run
    wait_for(run, 120)
    school.assert_intact(run)
    assert worker.is_running


@pytest.mark.slow
@pytest.mark.parametrize("by", ["a worker", "the command"])
def test_run_completes_after_redis_and_worker_are_killed_together(
    school: School, redis: Server, start_worker: StartWorkerThere, by: str
) -> None:
    worker = start_worker(concurrency=1, STALLED_AFTER_SECONDS=STALLED_SOON)
    with held(first("attempt")):
        run = sent(school)
        wait_for_a_batch(worker)
        worker.kill()
        redis.end()
    redis.start()
    assert messages(redis) == 0

    # A worker waits until the batches are overdue; who knows that all is lost needn't
    if by == "a worker":
        start_worker(STALLED_AFTER_SECONDS=STALLED_SOON)
    else:
        call_command("recover_runs", all=True, verbosity=0)
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


@pytest.mark.slow
@pytest.mark.parametrize("fault", [away, full])
def test_stage_that_cannot_be_sent_is_sent_when_redis_is_back(
    school: School,
    redis: Server,
    start_worker: StartWorkerThere,
    fault: Callable[[Server], Callable[[], None]],
) -> None:
    # Given the last batch of a stage, and a broker that fails while it is executed
    worker = start_worker(concurrency=1, STALLED_AFTER_SECONDS=STALLED_SOON)
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


@pytest.mark.parametrize(
    ("begin", "fault"),
    [
        (by_a_sync, away),
        pytest.param(by_a_sync, full, marks=pytest.mark.slow),
        pytest.param(by_the_function, away, marks=pytest.mark.slow),
        pytest.param(by_the_function, full, marks=pytest.mark.slow),
    ],
)
def test_run_asked_for_without_a_broker_waits_in_the_ledger(
    school: School,
    redis: Server,
    start_worker: StartWorkerThere,
    caplog: pytest.LogCaptureFixture,
    begin: Callable[[School], Run],
    fault: Callable[[Server], Callable[[], None]],
) -> None:
    # When a run is asked for while the broker doesn't take anything
    mend = fault(redis)
    with caplog.at_level(logging.ERROR):
        run = begin(school)

    # Then the caller gets no error, the log names the remedy, and the run waits in the ledger
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.startswith("The broker can't be reached (")
    assert f"Nothing is lost: run {run.pk} of {PROFILE} is in the ledger, and recover_runs" in line
    run.refresh_from_db()
    assert (run.state, run.sent_at) == (Run.State.PENDING, None)

    # When it is back, and a worker too, with limits as by default
    mend()
    start_worker()

    # Then the run completes, and its waiters are told
    assert_complete(school, run)
    if begin is by_a_sync:
        until(lambda: is_at(transfer_stages.DESERIALIZING, transfer_statuses.COMPLETED), "told")
