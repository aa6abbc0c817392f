"""Messages as nobody sends them: for Redis as texts, for other brokers as kombu reads them."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

from morango_celery.worker import envelope

BATCH = "morango_celery.deserialize_batch"

VALUES: list[Any] = [
    *(None, True, 0, -1, 10**400, 1e308, float("nan"), float("inf")),
    *("", "soon", "\ud800", "x" * 70_000, "2999-01-01T00:00:00", "9999-12-31T23:59:59.999999+14:00"),
    *([], [[]], [1], [None], [{}], {}, {"a": 1}, {"task": []}, {"task": "no.task", "args": 5}),
    *([{"task": "no.task", "subtask_type": "none"}], {"task": "no.task", "options": {"queue": []}}),
    *([-1, None], [10**400] * 2, [1e-9, 1e-9], [[], {}], {"__type__": "decimal", "__value__": "x"}),
]
PLACES: dict[str, tuple[Any, ...]] = {
    "": ("body", "content-type", "content-encoding", "headers", "properties"),
    "headers": (*envelope.NEEDED, *envelope.HEADERS, "redelivered", "stamp", "unknown"),
    "properties": (
        *(*envelope.PROPERTIES, "delivery_tag", "delivery_info", "body_encoding", "delivery_mode"),
        *("expiration", "unknown"),
    ),
    "body": (0, 1, 2),
    "embedded": ("callbacks", "errbacks", "chain", "chord", "unknown"),
}
"""Places at which a value can be replaced."""


def sound(task_id: str = "") -> dict[str, Any]:
    """Return a message for a batch that isn't in the ledger, before its body is a text."""
    task_id = task_id or str(uuid.uuid4())
    return {
        "body": [[0, "0" * 64], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": BATCH, "id": task_id, "argsrepr": "()", "retries": 0},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def packed(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as kombu has it: its body is a text."""
    body = base64.b64encode(json.dumps(message["body"]).encode()).decode()
    return {**message, "body": body}


def generated(number: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield messages of which one value, or two, may be anything."""
    chance = random.Random(seed)
    for _ in range(number):
        message = sound()
        of_envelope: dict[str, Any] = {}
        for _ in range(chance.choice((1, 1, 2))):
            place = chance.choice(list(PLACES))
            name, value = chance.choice(PLACES[place]), chance.choice(VALUES)
            if place == "":
                of_envelope[name] = value
            elif place == "embedded":
                if isinstance(message["body"][2], dict):
                    message["body"][2][name] = value
            else:
                message[place][name] = value
        yield {**packed(message), **of_envelope}


LAST = "the-last-one"
POLLED: list[Any] = [*generated(60), 5, None, [], "text", {}, packed(sound(LAST))]
"""Messages for a broker that is polled. The last one is valid."""
