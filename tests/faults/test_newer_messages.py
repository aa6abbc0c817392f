"""Messages of a newer version's form in the queue of a worker of this one."""

from __future__ import annotations

import json

from redis import Redis

from morango_celery.messaging.dispatch import CeleryDispatch, send
from morango_celery.messaging.task_names import DESERIALIZE_BATCH, START_RUN
from morango_celery.version import FORM
from tests.faults.outages import is_finalized
from tests.support.queues import lists
from tests.support.schools import School
from tests.support.waiting import until
from tests.support.workers import StartWorker

ROUNDS = 3
"""Number of times that messages have to be requeued."""


def number_put(client: Redis) -> int:
    """Return the number of messages that were put into any queue so far."""
    calls: int = client.info("commandstats")["cmdstat_lpush"]["calls"]
    return calls


def test_messages_of_a_newer_form_are_requeued_and_hold_up_no_others(
    school: School, celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given a worker with one process, and more messages of a newer form than it has places for
    run, newer_run = school.new_run(), school.new_run(form=FORM + 1)
    ids = {f"newer-{number}" for number in range(3)}
    for task_id in ids:
        assert send(START_RUN, [newer_run.pk], "newer", form=FORM + 1, task_id=task_id)
    assert send(DESERIALIZE_BATCH, [{"unheard": "of"}], "newer", form=FORM + 1, task_id="batch")
    ids.add("batch")

    with Redis.from_url(redis_url) as client:

        def waiting() -> list[str]:
            raw = [text for name in lists() for text in client.lrange(name, 0, -1)]
            return [json.loads(text)["headers"]["id"] for text in raw]

        worker = celery_worker_process(1)

        # When a message that it knows comes after them, then that one is carried out
        assert CeleryDispatch().start(run)
        worker.wait_until(lambda: is_finalized(run), "done")
        school.assert_intact(run)

        # ... while the others go round: each is held, and back in the queue, again and again
        before = number_put(client)
        worker.wait_until(lambda: number_put(client) >= before + ROUNDS * len(ids), "requeued")

        # Then the log has one line for each kind, nothing was begun, and the worker leaves them all behind
        log = worker.log()
        assert log.count("goes back to the queue") == 2
        assert "Traceback" not in log
        newer_run.refresh_from_db()
        assert (newer_run.state, newer_run.attempts) == ("pending", 0)
        worker.stop(30)
        until(lambda: ids <= set(waiting()), "all back in the queue")
