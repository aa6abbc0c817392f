"""Delivery of messages without a worker: from Redis through Celery's own tracer."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from celery.app.trace import build_tracer
from celery.states import FAILURE
from kombu.utils.json import loads
from redis import Redis

from tests.payloads.project import app


@dataclass(frozen=True)
class Message:
    """A message that waited in Redis."""

    raw: bytes

    @property
    def headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = json.loads(self.raw)["headers"]
        return headers

    @property
    def body(self) -> bytes:
        return base64.b64decode(json.loads(self.raw)["body"])

    def deliver(self) -> Any:
        """Execute the task, and return or raise its result; a retry is sent."""
        args, kwargs, embedded = loads(self.body)  # type: ignore[no-untyped-call]  # kombu's
        task = app.tasks[self.headers["task"]]
        tracer = build_tracer(task.name, task, app=app)
        request = {**self.headers, **embedded, "delivery_info": {"routing_key": "celery", "exchange": ""}}
        returned, failure, *_ = tracer(self.headers["id"], args, kwargs, request)
        if failure is not None and failure.state == FAILURE:
            raise failure.retval
        return returned


def waiting(client: Redis) -> list[Message]:
    """Take the sent messages out of the queue, and return them, the first one first."""
    found = []
    while raw := client.rpop("celery"):
        assert isinstance(raw, bytes)
        found.append(Message(raw))
    return found
