"""Syncs through each broker: kills, restarts, losses and freezes cost no record."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.events.receiver import EventReceiver
from morango.models.certificates import Filter

import morango_celery
from morango_celery.api import wait_for
from morango_celery.errors import BrokerUnreachableError, TransientError
from morango_celery.messaging.broker import reach_broker
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.events import id_of_start
from morango_celery.messaging.queue_length import queue_length
from morango_celery.models import Run
from morango_celery.runs.producer import create_run
from tests.brokers.conftest import QUORUM, Place
from tests.brokers.rows import LIMIT_SECONDS, first
from tests.brokers.tasks import count
from tests.support import factories
from tests.support.processes import PATIENCE_SECONDS
from tests.support.run_helpers import open_batch
from tests.support.schools import School
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


class Monitor(EventReceiver):
    """A receiver of events that tells when it listens."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.is_ready = threading.Event()

    def on_consume_ready(self, *arguments: Any, **options: Any) -> None:
        self.is_ready.set()


@contextmanager
def listening(connection: Any, handlers: Any, app: Any) -> Iterator[None]:
    """Have events handled by a thread inside."""
    monitor = Monitor(connection, handlers=handlers, app=app)
    options = {"limit": None, "timeout": None, "wakeup": False}
    thread = threading.Thread(target=monitor.capture, kwargs=options, daemon=True)
    thread.start()
    assert monitor.is_ready.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        monitor.should_stop = True
        thread.join(PATIENCE_SECONDS)


def test_sync_is_deserialized_in_batches_and_followed_by_events(place: Place, school: School) -> None:
    # Given a monitor that listens, and workers
    shown: list[str] = []
    handlers = {"task-progress": lambda event: shown.append(event["uuid"])}
    with place.app.connection_for_read() as connection, listening(connection, handlers, place.app):
        place.start_worker(2)

        # When a sync is deserialized
        run = school.new_run()
        assert CeleryDispatch().start(run)
        wait_for(run, 120)

        # Then the monitor has heard of it, nothing is missing, and nothing is left
        until(lambda: shown, "shown")
    school.assert_intact(run)
    assert run.batches.count() > 3
    assert set(shown) == {id_of_start(run)}
    until(lambda: queue_length(LIMIT_SECONDS) == 0, "empty")


def test_batch_of_a_killed_process_is_delivered_again(place: Place, school: School) -> None:
    worker = place.start_worker(1)
    with held(first("attempt")):
        run = school.new_run()
        assert CeleryDispatch().start(run)
        child = until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
        child.send_signal(signal.SIGKILL)

    wait_for(run, 120)

    school.assert_intact(run)
    assert run.batches.filter(attempts__gt=1).count() <= 1


def test_messages_outlast_a_broker_that_is_killed_and_started_again(place: Place, school: School) -> None:
    # Given messages in a broker, one of them with a worker
    worker = place.start_worker(1)
    with held(first("attempt")):
        run = school.new_run()
        assert CeleryDispatch().start(run)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
        waiting = queue_length(LIMIT_SECONDS)

        # When it is killed and started again
        place.server.kill()
        place.server.start()

    # Then they are still there, and the worker takes them
    assert waiting > 0
    wait_for(run, 180)
    school.assert_intact(run)


def test_recovery_replaces_lost_messages(place: Place, school: School) -> None:
    # Given a run whose message was lost
    run = school.new_run()
    assert CeleryDispatch().start(run)
    assert queue_length(LIMIT_SECONDS) == 1
    with place.app.connection_for_write() as connection:
        place.app.amqp.default_queue(connection.default_channel).purge()
    assert queue_length(LIMIT_SECONDS) == 0

    # When recovery looks
    assert morango_celery.recover_runs(all_unfinished=True) == 1

    # Then a worker gets the next one
    place.start_worker(2)
    wait_for(run, 120)
    school.assert_intact(run)


def test_stored_argument_and_its_retry_arrive(place: Place) -> None:
    worker = place.start_worker(1)

    count.delay(list(range(5000)))

    worker.wait_for_log("5000 values")
    assert worker.log().count("Task tests.brokers.count") >= 2
    until(lambda: queue_length(LIMIT_SECONDS) == 0, "empty")


def test_frozen_broker_holds_up_a_sender_for_a_limited_time(place: Place, make_school: object) -> None:
    # Given a connection that works
    batch = open_batch(100)
    assert CeleryDispatch().batch(batch)

    with place.server.frozen():
        # When messages are to be sent, and questions asked
        begun = time.monotonic()
        assert not CeleryDispatch().batch(batch)
        with pytest.raises(TransientError):
            queue_length(1)
        with pytest.raises(BrokerUnreachableError):
            reach_broker(1)

        # Then all that has an end
        assert time.monotonic() - begun < LIMIT_SECONDS

    # And it works again at once when the broker does
    assert CeleryDispatch().batch(batch)
    assert reach_broker(LIMIT_SECONDS)


def test_small_and_begun_runs_go_before_large_ones(place: Place) -> None:
    # Given a batch of a large run, then runs to be started, and then a batch of a small run that has begun
    large, small = open_batch(200_000), open_batch(100)
    assert CeleryDispatch().batch(large)
    pending = []
    for number in range(2):
        school_id = f"{number:032x}"
        factories.store_row("unit", school_id=school_id)
        pending.append(create_run(PROFILE, Filter(school_id), serialize_first=False, session_notified=True))
    for run in pending:
        assert CeleryDispatch().start(run)
    assert CeleryDispatch().batch(small)

    # When a worker process takes them one after another
    place.start_worker(1, MORANGO_CELERY_BATCH_SIZE_RECORDS="")
    until(lambda: not Run.objects.exclude(state=Run.State.COMPLETED).exists(), "done")

    # Then the small run ends before the others begin, and the large one is the last
    ends = list(Run.objects.order_by("finished_at").values_list("pk", flat=True))
    starting = [run.pk for run in pending]
    if place.queue_type != QUORUM:
        assert ends == [small.run_id, *starting, large.run_id]
    elif place.server.release() < (4, 0):
        assert ends == [large.run_id, *starting, small.run_id], "such queues have no priorities"
    else:
        assert ends.index(large.run_id) in (1, 2), "its turn comes after two others at most"
