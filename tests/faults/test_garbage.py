"""Worker that gets garbage in all ways by which data reaches a worker: it lives on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from morango_celery.messaging.dispatch import CeleryDispatch
from tests.faults.garbage import LAST, generated, packed, sound
from tests.faults.outages import is_finalized
from tests.support.processes import LoggedProcess
from tests.support.queues import lists
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker.celery import app

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

NOT_IN_THE_LEDGER = "Batch 0 is not in the ledger"

TEXTS = [b"hello", b"\xff\xfe\x00\x80", b"[" * 100_000, b"5", b"null", b"[1, 2]", b"{}", b'{"properties": 5}']


def of_remote_control(body: Any) -> dict[str, Any]:
    """Return a message that all workers get."""
    message = packed({**sound(), "body": body})
    message["headers"] = {"clock": 1, "expires": 0}
    message["properties"]["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
    return message


def assert_lives_on(worker: LoggedProcess) -> None:
    assert worker.is_running
    assert worker.log().count("ready.") == 1
    assert worker.log().count("Connection to broker lost") == 0


def test_generated_messages_are_refused_and_do_not_come_again(
    school: Any, celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given one worker, and many messages in its queue, each with something that nobody sends
    worker = celery_worker_process(1, MORANGO_CELERY_BATCH_SIZE_RECORDS="200")
    with Redis.from_url(redis_url) as client:
        for message in generated(400):
            client.lpush("celery", json.dumps(message))

        # When it has got them, then it carries a run out
        run = school.new_run()
        assert CeleryDispatch().start(run)
        until(lambda: is_finalized(run), "done", 120)
        school.assert_intact(run)
        assert_lives_on(worker)

        # And nothing is left that would go to the next one
        until(lambda: not client.exists(*lists(), "unacked"), "taken")


def test_garbage_for_all_workers_harms_none(
    school: Any, celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given what workers put away as being worked at, and is none; and a message that is older
    with Redis.from_url(redis_url) as client:
        for number, text in enumerate([*TEXTS, b'[{"properties": 5}, "", "celery"]', b"[[], [], []]"]):
            client.hset("unacked", f"tag-{number}", text)
            client.zadd("unacked_index", {f"tag-{number}": 2 + number})
        client.hset("unacked", "lost", json.dumps([packed(sound()), "", "celery"]))
        client.zadd("unacked_index", {"lost": 1})
        worker = celery_worker_process(1, MORANGO_CELERY_BATCH_SIZE_RECORDS="200")

        # When what is no remote control is sent to all workers
        sent = [*TEXTS, *(json.dumps(message).encode() for message in generated(60, seed=2))]
        bodies: list[Any] = [
            {},
            {"method": []},
            {"method": "ping", "arguments": 5},
            {"destination": 5},
            [],
            5,
        ]
        sent += [json.dumps(of_remote_control(body)).encode() for body in bodies]
        for text in sent:  # which Celery answers with a new subscription now and then
            until(partial(client.publish, "/0.celery.pidbox", text), "heard")

        # Then the worker listens to it still, takes what is older than the garbage, and carries a run out
        until(lambda: app.control.ping(timeout=1), "answered")
        worker.wait_for_log(NOT_IN_THE_LEDGER)
        run = school.new_run()
        assert CeleryDispatch().start(run)
        until(lambda: is_finalized(run), "done", 120)
        assert_lives_on(worker)
        until(lambda: not client.exists(*lists(), "unacked"), "taken")


@pytest.mark.parametrize("broker", ["memory://", "filesystem://"])
def test_any_transports_garbage_is_refused(
    celery_worker_process: StartWorker, tmp_path: Path, broker: str
) -> None:
    # Given texts that are no messages, where a broker keeps them as files
    folder = tmp_path / "queue"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}_text.celery.msg").write_bytes(text)

    # When a worker gets them, and messages of other shapes, and a sound one at last
    worker = celery_worker_process(
        1,
        DJANGO_SETTINGS_MODULE="tests.faults.polled_settings",
        POLLED_BROKER=broker,
        POLLED_FOLDER=str(folder),
    )

    # Then it carries that out, and has the others no more
    worker.wait_for_log(f"deserialize_batch[{LAST}] succeeded", 120)
    if broker == "filesystem://":
        until(lambda: not list(folder.glob("*_text.celery.msg")), "taken")
    assert_lives_on(worker)
