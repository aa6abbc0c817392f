"""Traces of OpenTelemetry: a sync's request, its run and its batches are one, by Celery's instrumentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from celery.signals import worker_process_init
from celery.worker.request import Request
from django.db import OperationalError
from morango.constants import transfer_statuses
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from psycopg2.errors import DeadlockDetected

import morango_celery
from morango_celery import recover_runs
from morango_celery.messaging.task_names import DESERIALIZE_BATCH, START_RUN
from morango_celery.models import Batch, Run
from morango_celery.runs import opening
from morango_celery.worker import run_steps
from tests.support.processes import ROOT
from tests.support.queues import QUEUE
from tests.support.run_helpers import new_run, unit
from tests.support.sync_state import dequeued_session, proceed, received_records
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

PAGE = (ROOT / "docs" / "how-to" / "watch.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^## Traces$.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
REQUEST = "sync"


class Traced:
    """Spans of this process, which sends messages and executes them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer(__name__)

    @property
    def spans(self) -> dict[int, ReadableSpan]:
        return {span.context.span_id: span for span in self.exporter.get_finished_spans()}

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.values() if span.name == name]

    def above(self, span: ReadableSpan) -> list[str]:
        """Return the names of the spans that a span lies in, the nearest first."""
        names = []
        while span.parent is not None:
            span = self.spans[span.parent.span_id]
            names.append(span.name)
        return names


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """Instrument Celery as the page says, for spans that are kept in memory."""
    found = Traced()
    instrument = CeleryInstrumentor.instrument
    monkeypatch.setattr(
        CeleryInstrumentor, "instrument", lambda self: instrument(self, tracer_provider=found.provider)
    )
    before = list(worker_process_init.receivers)
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, "watch.md", "exec"), names)
    worker_process_init.receivers = before
    names["trace_tasks"]()
    yield found
    CeleryInstrumentor().uninstrument()


def execute_messages() -> None:
    """Execute the messages of runs and batches that are in Redis, as a worker's process does."""
    with current_app.connection_for_read() as connection, connection.channel() as channel:
        while message := channel.basic_get(QUEUE, no_ack=True):
            if message.headers["task"] in (START_RUN, DESERIALIZE_BATCH):
                Request(message, app=current_app, hostname="test").execute()


@pytest.mark.usefixtures("redis_url")
def test_request_run_and_batches_are_one_trace(traced: Traced, batch_size: Callable[[int], None]) -> None:
    # Given a sync of so many records that its run has several stages of several batches
    batch_size(20)
    session = dequeued_session(received_records(), push=True)

    # When its request asks for a run, and workers carry that out
    with traced.tracer.start_as_current_span(REQUEST):
        assert proceed(session) == transfer_statuses.STARTED
    execute_messages()

    # Then everything is in the trace of the request
    run = Run.objects.get()
    assert run.state == Run.State.COMPLETED
    assert run.stage > 1
    batches = traced.named("run/morango_celery.deserialize_batch")
    assert len(batches) == run.batches.count() == Batch.objects.count()
    (start,) = traced.named("run/morango_celery.start_run")
    assert traced.above(start) == ["apply_async/morango_celery.start_run", REQUEST]
    assert {span.context.trace_id for span in (start, *batches)} == {
        span.context.trace_id for span in traced.named(REQUEST)
    }
    for batch in batches:
        assert traced.above(batch)[0] == "apply_async/morango_celery.deserialize_batch"
        assert traced.above(batch)[-3:] == [
            "run/morango_celery.start_run",
            "apply_async/morango_celery.start_run",
            REQUEST,
        ]


@pytest.mark.usefixtures("redis_url")
def test_retry_stays_in_the_trace(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that asks once to try again
    unit()
    attempt_start, outages = opening.attempt_start, [OperationalError("once")]

    def attempt(*arguments: Any) -> Any:
        if outages:
            raise outages.pop() from DeadlockDetected()
        return attempt_start(*arguments)

    monkeypatch.setattr(run_steps, "attempt_start", attempt)

    with traced.tracer.start_as_current_span(REQUEST):
        run = morango_celery.deserialize(PROFILE)
    execute_messages()

    run.refresh_from_db()
    assert run.state == Run.State.COMPLETED
    first, again = sorted(
        traced.named("run/morango_celery.start_run"), key=lambda span: len(traced.above(span))
    )
    assert traced.above(again) == [
        "apply_async/morango_celery.start_run",
        first.name,
        *traced.above(first),
    ]
    assert traced.above(first)[-1] == REQUEST


@pytest.mark.usefixtures("redis_url")
def test_message_that_recovery_sends_again_is_in_the_trace_of_recovery(traced: Traced) -> None:
    unit()
    new_run()
    with traced.tracer.start_as_current_span("recovery"):
        assert recover_runs(all_unfinished=True) == 1
    execute_messages()

    (start,) = traced.named("run/morango_celery.start_run")
    assert traced.above(start) == ["apply_async/morango_celery.start_run", "recovery"]
