"""Real worker processes and a real broker: execution, survival, and messages that are never sent."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import threading
from typing import Any

import pytest
from morango.models import Store
from redis import Redis

import morango_celery
from morango_celery import tasks
from morango_celery.api import wait_for
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.messaging.priorities import STARTING
from morango_celery.models import Batch, Run, Worker, hash_of_ids
from morango_celery.runs.batching import open_batches
from morango_celery.runs.producer import create_run, start
from morango_celery.version import FORM_HEADER
from tests.support import factories
from tests.support.queues import list_of
from tests.support.waiting import child_that_waits_for_a_lock, has_ended, held, until
from tests.support.workers import StartWorker
from worker.celery import app
from worker.school.models import PROFILE, Attempt, Unit

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "Xanthippe Quillfeather"


def new_run() -> Run:
    return create_run(PROFILE, None, serialize_first=False, session_notified=True)


def test_two_workers_deserialize_a_school(celery_worker_process: StartWorker) -> None:
    # Given 5,000 records, a few of them broken, and two workers
    sent = factories.fill_store(5000)
    broken = [factories.store_row("lesson", unit_id="ab" * 16).id for _ in range(3)]
    for _ in range(2):
        celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="250")

    # When a run is enqueued and waited for
    run = morango_celery.deserialize(PROFILE, wait=60)

    # Then every record is where it belongs, and the broken ones are in error
    assert (run.state, run.records, run.saved, run.failed) == (Run.State.COMPLETED, 5003, 5000, 3)
    assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent
    assert sorted(Store.objects.filter(dirty_bit=True).values_list("id", flat=True)) == sorted(broken)
    batches = Batch.objects.all()
    assert {batch.state for batch in batches} == {Batch.State.DONE}
    assert max(batch.size for batch in batches) == 250
    assert Attempt.objects.filter(_morango_dirty_bit=True).count() == 0


def test_run_survives_the_death_of_a_pool_process(celery_worker_process: StartWorker) -> None:
    # Given a worker in the middle of a batch: another session holds one of its records
    sent = factories.fill_store(600)
    worker = celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="100")
    attempt = Store.objects.filter(model_name="attempt").earliest("id")
    with held(attempt.id):
        run = morango_celery.deserialize(PROFILE)
        child = until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")

        # When the process that executes it is killed
        child.send_signal(signal.SIGKILL)
        until(lambda: has_ended(child), "dead")

    # Then another one takes its place and the run completes, every record counted once
    wait_for(run, 60)
    assert (run.state, run.records, run.saved, run.failed) == (Run.State.COMPLETED, 600, 600, 0)
    assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent
    assert worker.is_running
    assert "WorkerLostError" in worker.log()

    # ... and the ledger knows by the recovery that the worker asked for at its start that it lives
    until(Worker.objects.filter(name__startswith="test1@").exists, "the worker is noted")


def test_run_survives_the_death_of_its_worker(celery_worker_process: StartWorker) -> None:
    # Given a worker that is killed as a whole in the middle of a batch
    factories.fill_store(300)
    worker = celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="100")
    attempt = Store.objects.filter(model_name="attempt").earliest("id")
    with held(attempt.id):
        run = morango_celery.deserialize(PROFILE)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
        worker.kill()

    # When another one is started, and recovery doesn't wait for the broker to notice
    celery_worker_process(concurrency=1, MORANGO_CELERY_BATCH_SIZE_RECORDS="100")
    ended = Run.objects.filter(pk=run.pk, state=Run.State.COMPLETED)
    # The dead worker's session may hold the batch for a moment, and the living one recovers as well
    until(lambda: morango_celery.recover_runs(all_unfinished=True) or ended.exists(), "sent again, or done")

    # Then the run completes, every record counted once
    wait_for(run, 60)
    assert (run.state, run.records, run.saved, run.failed) == (Run.State.COMPLETED, 300, 300, 0)


MALFORMED: list[tuple[str, list[Any], str]] = [
    ("start_run", ["1"], "run_id is a whole number, not '1'."),
    ("start_run", [None], "run_id is a whole number, not None."),
    ("start_run", [True], "run_id is a whole number, not True."),
    ("start_run", [[1]], "run_id is a whole number, not [1]."),
    ("start_run", [{"pk": 1}], "run_id is a whole number, not {'pk': 1}."),
    ("start_run", [-1], "Run -1 is not in the ledger"),
    ("start_run", [10**30], "run_id is larger than any in the ledger."),
    ("start_run", [], "The message doesn't fit start_run: missing a required argument: 'run_id'."),
    ("start_run", [1, 2], "The message doesn't fit start_run: too many positional arguments."),
    ("deserialize_batch", ["1", []], "batch_id is a whole number, not '1'."),
    ("deserialize_batch", [1.5, []], "batch_id is a whole number, not 1.5."),
    ("deserialize_batch", [None, None], "batch_id is a whole number, not None."),
    ("deserialize_batch", [0, "0" * 64], "Batch 0 is not in the ledger"),
    ("deserialize_batch", [1], "doesn't fit deserialize_batch: missing a required argument: 'ids_sha256'."),
    ("notify_session", ["one"], "run_id is a whole number, not 'one'."),
    ("notify_session", [10**18], f"Run {10**18} is not in the ledger"),
    ("compare_sync", ["1"], "comparison_id is a whole number, not '1'."),
    ("compare_sync", [10**18], "nothing to compare"),
    ("recover_runs", ["everything"], "doesn't fit recover_runs: too many positional arguments."),
    ("no_such_task", [1], "morango_celery.no_such_task"),
]
"""Task, arguments, and the worker's log line."""

NO_HASHES: list[Any] = ["a text", None, 7, {"ids": []}, [], [None], ["f" * 32], "f" * 63, "F" * 64]
FOR_A_BATCH: list[Any] = [*NO_HASHES, "f" * 64]


def test_malformed_messages_are_refused_and_do_no_harm(celery_worker_process: StartWorker) -> None:
    # Given an open batch, and messages that don't fit it or anything else
    factories.fill_store(20)
    run = start(new_run().pk).run
    (batch,) = open_batches(run)
    for name, arguments, _ in MALFORMED:
        app.send_task(f"morango_celery.{name}", arguments)
    for ids_sha256 in FOR_A_BATCH:
        app.send_task("morango_celery.deserialize_batch", [batch.pk, ids_sha256])
    app.send_task("morango_celery.deserialize_batch", [batch.pk, batch.ids_sha256], {"more": 1})
    app.send_task("morango_celery.start_run", [], {"run_id": run.pk, "urgent": True})

    # When a worker gets them all, and then a good one
    worker = celery_worker_process(concurrency=1)
    assert CeleryDispatch().batch(batch)
    wait_for(run, 60)

    # Then it has refused them, without harm to itself, the run or the records
    assert worker.is_running
    log = worker.log()
    assert [text for _, _, text in MALFORMED if text not in log] == []
    assert log.count("ids_sha256 is a text of 64 hex digits.") >= len(NO_HASHES)
    assert f"The message's ids are not those of {batch}" in log
    for field in ("more", "urgent"):
        assert f"got an unexpected keyword argument '{field}'" in log
    assert (run.state, run.error, run.records, run.saved) == (Run.State.COMPLETED, "", 20, 20)
    assert Run.objects.count() == Batch.objects.count() == 1


def readable(command: str) -> str:
    """Return a Redis command as text, with Celery's encoded task bodies spelled out."""
    parts = [command]
    start = command.find("{")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message, _ = json.JSONDecoder().raw_decode(command[start:])
        parts.append(base64.b64decode(message["body"]).decode())
    return "\n".join(parts)


def test_messages_carry_ids_and_never_contents(redis_url: str) -> None:
    # Given records with contents that are easy to find
    unit = factories.store_row("unit", name=SECRET)
    learner = factories.store_row("learner", unit=unit, full_name=SECRET, username=SECRET)
    attempt = factories.store_row("attempt", learner=learner, answer=SECRET)
    run = new_run()

    # When the run is sent, and its batch
    assert CeleryDispatch().start(run)
    (batch,) = open_batches(start(run.pk).run)
    assert CeleryDispatch().batch(batch)

    # Then the broker has two messages, with the run's id and with the batch's, and what its ids are known by
    with Redis.from_url(redis_url) as client:
        first, second = (json.loads(client.lindex(list_of(priority), 0)) for priority in (STARTING, 0))
    assert body(first)[0] == [run.pk]
    batch = Batch.objects.get()
    assert body(second)[0] == [batch.pk, hash_of_ids([unit.id, learner.id, attempt.id])]
    assert batch.store_ids == [unit.id, learner.id, attempt.id]

    # ... and neither these nor their headers say more
    assert body(first)[1] == body(second)[1] == {}
    assert (first["headers"][FORM_HEADER], second["headers"][FORM_HEADER]) == (run.form, batch.form)
    assert first["headers"]["argsrepr"] == f"(run {run.pk} of school)"
    assert second["headers"]["argsrepr"] == f"(unit + lesson + 2 more x 3, run {run.pk}, batch 1/1)"
    # ... nor do they bring along the time limits of who sends them
    assert tasks.start_run.time_limit
    for message in (first, second):
        assert message["headers"]["timelimit"] == [None, None]
        assert SECRET not in json.dumps([message, body(message)])
        assert factories.SCHOOL_ID not in json.dumps([message, body(message)])


def body(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


def test_nothing_that_passes_through_redis_tells_a_record(
    celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given records of every fate whose contents are easy to find, and a listener at the broker
    unit = factories.store_row("unit", name=SECRET)
    factories.store_row("lesson", unit=unit, title=SECRET * 20)  # too long
    factories.store_row("lesson", unit_id=SECRET)  # no id
    factories.store_row("learner", unit=unit, full_name=SECRET, birth_year=SECRET)
    factories.store_row("learner", unit=unit, full_name=SECRET, school_id="ab" * 16)  # refused by save()
    for _ in range(2):
        factories.store_row("learner", unit=unit, full_name=SECRET, username=SECRET)  # not unique
    factories.store_row("lesson", serialized='{"title": "' + SECRET)
    celery_worker_process(concurrency=1)
    heard: list[str] = []
    with Redis.from_url(redis_url) as client, client.monitor() as monitor:

        def listen() -> None:
            with contextlib.suppress(Exception):  # the connection is closed under it at the end
                for command in monitor.listen():
                    heard.append(readable(command["command"]))  # noqa: PERF401  (it never ends)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()

        # When they are deserialized by a worker that sends events, retries and results as it does
        run = morango_celery.deserialize(PROFILE, wait=60)
        # A worker gathers events before it sends them
        until(lambda: any("task-succeeded" in command for command in heard), "heard an event")
        with Redis.from_url(redis_url) as other:
            other.echo("the end")
        until(lambda: any("the end" in command for command in heard), "heard to the end")

    # Then all that went through Redis names the records by the hash of their ids at most
    assert (run.saved, run.failed) == (2, 6)
    ids = Batch.objects.latest("pk").ids_sha256  # of the second pass
    assert [command for command in heard if ids in command], "the batch's message was not heard"
    for piece in (SECRET, SECRET.split()[0], SECRET.split()[1]):
        assert not [command for command in heard if piece in command]


def test_results_are_counts(redis_url: str) -> None:
    factories.fill_store(10)
    factories.store_row("unit", name=None)
    run = start(new_run().pk).run
    (batch,) = open_batches(run)

    assert tasks.deserialize_batch(batch.pk, batch.ids_sha256) == {
        "saved": 10,
        "deleted": 0,
        "propagated": 0,
        "conflicted": 0,
        "failed": 1,
    }


def test_worker_that_starts_takes_up_what_waits_in_the_ledger(celery_worker_process: StartWorker) -> None:
    # Given a run that nobody could send
    factories.store_row("unit", name="School")
    waiting = new_run()
    assert waiting.sent_at is None

    celery_worker_process(concurrency=1)

    assert wait_for(waiting, 60).saved == 1
    assert Unit.objects.get().name == "School"
