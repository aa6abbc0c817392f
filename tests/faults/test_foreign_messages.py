"""Messages from elsewhere, put into the queue by hand: refused in the log, and no harm to the worker."""

from __future__ import annotations

import base64
import json
import os
import pickle
import uuid
from typing import Any

import pytest
from morango.models import Store
from redis import Redis
from typing_extensions import override

from morango_celery.messaging.dispatch import CeleryDispatch
from tests.faults.outages import is_finalized
from tests.support.schools import School
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

BATCH = "morango_celery.deserialize_batch"
NO_BODY = "its body is not a list of arguments, named arguments and options"


class Explodes:
    """Pickle of an attacker: it acts when it is loaded."""

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def message(
    arguments: Any = (),
    *,
    task: str | None = BATCH,
    body: bytes | None = None,
    content_type: str = "application/json",
    encoding: str = "utf-8",
    headers: dict[str, Any] | None = None,
    **further: Any,
) -> bytes:
    """Return a message as kombu puts it into Redis."""
    task_id = str(uuid.uuid4())
    if body is None:
        body = json.dumps([arguments, {}, {}]).encode()
    named = {"lang": "py", "task": task, "id": task_id, "argsrepr": "()", "kwargsrepr": "{}", "retries": 0}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": {**(named if task is not None else {}), **(headers or {})},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "celery"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
            **further,
        }
    ).encode()


MESSAGES: dict[str, tuple[bytes, str]] = {
    "pickle": (
        message(
            body=pickle.dumps([[Explodes()], {}, {}]),
            content_type="application/x-python-serialize",
            encoding="binary",
        ),
        "Refusing to deserialize untrusted content of type pickle",
    ),
    "yaml": (
        message(body=b"- !!python/object/apply:os._exit [1]", content_type="application/x-yaml"),
        "Refusing to deserialize untrusted content of type yaml",
    ),
    "an unknown content type": (
        message(content_type="application/x-unheard-of"),
        "Refusing to deserialize untrusted content of type",
    ),
    "an unknown task": (message([1], task="os.system"), "Received unregistered task of type 'os.system'"),
    "no task": (message([1], task=None), "Received and deleted unknown message"),
    "garbage in the body": (message(body=b"\xff\x00garbage"), "Can't decode message body"),
    "no JSON in the body": (message(body=b"{{{"), "Can't decode message body"),
    "too few parts in the body": (message(body=b"[]"), NO_BODY),
    "a number as body": (message(body=b"7"), NO_BODY),
    "parts of other types": (message(body=b"[1, 2, 3]"), NO_BODY),
    "no arguments": (message(None), NO_BODY),
    "text as arguments": (message("arguments"), NO_BODY),
    "time limits that end it at once": (
        message([0, "0" * 64], headers={"timelimit": [0.001, None]}),
        "its time limits end it before it can begin",
    ),
    "a time far ahead": (
        message([0, "0" * 64], headers={"eta": "2999-01-01T00:00:00+00:00"}),
        "its time is too far ahead",
    ),
    "what is to follow, and is no task": (
        message(body=json.dumps([[0, "0" * 64], {}, {"callbacks": [{"task": 5}]}]).encode()),
        "its callbacks is not a list of tasks",
    ),
    "unknown fields": (message([1, [], 3]), "doesn't fit deserialize_batch: too many positional arguments"),
    "a text as id": (
        message(["1; DROP TABLE morango_store", []]),
        "batch_id is a whole number, not '1; DROP",
    ),
    "no hash of ids": (message([0, {"a": 1}]), "ids_sha256 is a text of 64 hex digits"),
}
"""Entries for Redis, and the texts in the worker's log, by name."""


def broken(name: str, value: Any, part: str | None = None) -> bytes:
    """Return a message in which one of its envelope's entries is replaced, or is missing, for None.

    :param part: the entry is one of these: ``headers`` or ``properties``
    """
    envelope: dict[str, Any] = json.loads(message([1, []]))
    entries = envelope[part] if part else envelope
    entries.pop(name, None)
    if value is not None:
        entries[name] = value
    return json.dumps(envelope).encode()


def of_the_first_protocol(**payload: Any) -> bytes:
    return message(task=None, body=json.dumps(payload).encode())


NO_MESSAGES: dict[str, tuple[bytes, str]] = {
    "a text": (b"hello", "JSONDecodeError: Expecting value"),
    "nothing": (b"", "JSONDecodeError: Expecting value"),
    "bytes that are no text": (b"\xff\xfe\x00\x80", "JSONDecodeError: Expecting value"),
    "fifty million letters": (b"x" * 50_000_000, "JSONDecodeError: Expecting value"),
    "a hundred thousand brackets": (b"[" * 100_000, "RecursionError: maximum recursion depth exceeded"),
    "a number": (b"5", "TypeError: 'int' object is not subscriptable"),
    "null": (b"null", "TypeError: 'NoneType' object is not subscriptable"),
    "a list": (b"[1, 2]", "TypeError: list indices must be integers"),
    "an empty object": (b"{}", "KeyError: 'properties'"),
    "properties that have no names": (broken("properties", [1]), "AttributeError: 'list' object has no"),
    "no tag": (broken("delivery_tag", None, "properties"), "KeyError: 'delivery_tag'"),
    "a list as tag": (broken("delivery_tag", [1], "properties"), "don't say where it was sent"),
    "no address": (broken("delivery_info", {}, "properties"), "don't say where it was sent"),
    "a body that is no base64": (broken("body", "abcde"), "Error: Invalid base64-encoded string"),
    "a body that is no text": (broken("body", [1]), "TypeError: argument should be a bytes-like object"),
    "no body": (broken("body", None), "its body is not a text"),
    "an unknown form of the body": (
        broken("body_encoding", "rot13", "properties"),
        "has no attribute 'decode'",
    ),
    "a number as encoding": (broken("content-encoding", 5), "its content type or encoding is not a text"),
    "headers without names": (broken("headers", [1]), "AttributeError: 'list' object has no attribute 'get'"),
    "a list as task": (broken("task", [1], "headers"), "its task is not a text"),
    "no id": (broken("id", None, "headers"), "its id is not a text"),
    "a number as stamps": (broken("stamped_headers", 5, "headers"), "its stamped_headers is not a list of"),
    "lists as stamps": (broken("stamped_headers", [[]], "headers"), "its stamped_headers is not a list of"),
    "an empty list as time": (broken("eta", [], "headers"), "its eta is not a time"),
    "an empty text as time": (broken("eta", "", "headers"), "its eta is not a time"),
    "a date that is none": (broken("eta", "soon", "headers"), "its eta is not a time"),
    "an empty list as end": (broken("expires", [], "headers"), "its expires is not a time"),
    "an empty object as end": (broken("expires", {}, "headers"), "its expires is not a time"),
    "time limits that are none": (broken("timelimit", 5, "headers"), "its timelimit is not two numbers"),
    "a negative time limit": (broken("timelimit", [-1, None], "headers"), "its timelimit is not two"),
    "time limits that no clock has": (
        broken("timelimit", [10**400, 10**400], "headers"),
        "its timelimit is not two numbers",
    ),
    "half a letter as id": (broken("id", "\ud800", "headers"), "its id is not a text"),
    "no number of tries": (broken("retries", 10**400, "headers"), "its retries is not a whole number"),
    "a list as address": (
        broken("delivery_info", {"exchange": [], "routing_key": "celery"}, "properties"),
        "its exchange is not a text",
    ),
    "no id, in the first protocol": (of_the_first_protocol(task=BATCH), "its id is not a text"),
    "a list as task, there": (of_the_first_protocol(task=[1], id="1"), "its task is not a text"),
    "a list as time, there": (of_the_first_protocol(task=BATCH, id="1", eta=[]), "its eta is not a time"),
    "a decimal number that is none": (
        broken("lang", {"__type__": "decimal", "__value__": "x"}, "headers"),
        "InvalidOperation: [<class 'decimal.ConversionSyntax'>]",
    ),
}
"""The same, of what kombu can't make a message of, or Celery could not do away with."""


def test_malformed_messages_are_refused_and_the_worker_lives(
    school: School, celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given a worker, and messages of all kinds in its queue
    worker = celery_worker_process(1, MORANGO_CELERY_BATCH_SIZE_RECORDS="50")
    with Redis.from_url(redis_url) as client:
        for raw, _ in MESSAGES.values():
            client.lpush("celery", raw)
        run = school.new_run()

        # When it gets them, and then one of ours
        assert CeleryDispatch().start(run)
        worker.wait_until(lambda: is_finalized(run), "done")

        # Then it has refused them by name, carried none out, and done its work
        log = worker.log()
        assert [name for name, (_, text) in MESSAGES.items() if text not in log] == []
        school.assert_intact(run)
        assert worker.is_running
        until(lambda: not client.exists("celery", "unacked"), "taken")  # they don't come again


def test_garbage_in_place_of_a_message_is_dropped_and_the_worker_lives(
    school: School, celery_worker_process: StartWorker, redis_url: str
) -> None:
    # Given a worker in the middle of a run
    worker = celery_worker_process(1, MORANGO_CELERY_BATCH_SIZE_RECORDS="20")
    run = school.new_run()
    learner = Store.objects.filter(model_name="learner", partition__startswith=school.id).earliest("id")
    with Redis.from_url(redis_url) as client:
        with held(learner.id):
            assert CeleryDispatch().start(run)
            until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")

            # When its queue holds things that Celery would not have put there, and messages between them
            for raw, _ in NO_MESSAGES.values():
                client.lpush("celery", raw)
                client.lpush("celery", message([0, "0" * 64]))
        worker.wait_until(lambda: is_finalized(run), "done", 60)
        worker.wait_until(lambda: not client.exists("celery", "unacked"), "taken", 60)

    # Then each is refused, with its reason, none ended or restarted the worker, and nothing else was lost
    log = worker.log()
    refused = [line for line in log.splitlines() if "Refused a malformed message" in line]
    assert [
        name for name, (_, text) in NO_MESSAGES.items() if not any(text in line for line in refused)
    ] == []
    assert len(refused) == len(NO_MESSAGES)
    assert log.count("Batch 0 is not in the ledger") == len(NO_MESSAGES)
    assert log.count("Connected to redis") == 1
    assert worker.is_running
    school.assert_intact(run)
