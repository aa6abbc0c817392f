"""Runs that lose their broker, and their required outcome."""

from __future__ import annotations

from django.core.management import call_command
from morango.constants import transfer_statuses
from morango.models import Store
from redis import Redis

import morango_celery
from morango_celery.api import wait_for
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from tests.faults.servers import Server
from tests.support.factories import SCHOOL_ID
from tests.support.processes import LoggedProcess
from tests.support.queues import lengths
from tests.support.schools import School
from tests.support.sync_state import dequeued_session, proceed
from tests.support.waiting import child_that_waits_for_a_lock
from worker.school.models import PROFILE

STALLED_SOON = "3"
"""STALLED_AFTER_SECONDS of a worker that is to find lost work soon."""


def sent(school: School) -> Run:
    run = school.new_run()
    assert CeleryDispatch().start(run)
    return run


def is_finalized(run: Run) -> bool:
    """Return True if all that follows a run's end has happened."""
    run.refresh_from_db()
    return run.finalized


def first(model_name: str) -> str:
    return str(Store.objects.filter(model_name=model_name, dirty_bit=True).earliest("id").id)


def wait_for_a_batch(worker: LoggedProcess) -> None:
    def is_begun() -> bool:
        batches = Batch.objects.filter(state=Batch.State.OPEN, attempts__gt=0)
        return batches.exists() and child_that_waits_for_a_lock(worker.pid) is not None

    worker.wait_until(is_begun, "in the middle of a batch")


def messages(redis: Server) -> int:
    """Return the number of messages that wait or are with a worker."""
    with Redis.from_url(redis.url) as client:
        return sum(lengths(client).values()) + int(client.hlen("unacked"))


def assert_complete(school: School, run: Run) -> None:
    wait_for(run, 120)
    school.assert_intact(run)
    assert set(Batch.objects.filter(run=run).values_list("attempts", "state")) == {(1, Batch.State.DONE)}


def by_a_sync(school: School) -> Run:
    call_command("loaddata", "scopedefinitions", verbosity=0)
    assert proceed(dequeued_session(200, push=True)) == transfer_statuses.STARTED
    return Run.objects.get()


def by_the_function(school: School) -> Run:
    return morango_celery.deserialize(PROFILE, SCHOOL_ID)
