"""RabbitMQ's own dangers: alarms that block publishers, garbage, queues that are declared otherwise."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import amqp
import pytest
from amqp import spec
from kombu import entity

import morango_celery
from morango_celery.api import wait_for
from morango_celery.messaging import rabbitmq as connections
from morango_celery.messaging.dispatch import CeleryDispatch, send
from morango_celery.messaging.queue_length import queue_length
from morango_celery.messaging.rabbitmq import IS_BLOCKED
from morango_celery.messaging.task_names import START_RUN
from morango_celery.models import Run
from morango_celery.worker.event_dispatcher import BoundedDispatcher
from tests.brokers.conftest import CLASSIC, Place, application
from tests.brokers.rows import LIMIT_SECONDS, first
from tests.support.processes import PATIENCE_SECONDS
from tests.support.run_helpers import open_batch
from tests.support.schools import School
from tests.support.waiting import child_that_waits_for_a_lock, held, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

NOT_IN_THE_LEDGER = 10**9
entities: Any = entity  # they have no types


def send_one() -> bool:
    return send(START_RUN, [NOT_IN_THE_LEDGER], "a message")


class TestMemoryAlarm:
    """RabbitMQ reads nothing more from connections that publish."""

    @pytest.fixture(autouse=True)
    def _one_process(self) -> Iterator[None]:
        yield
        for parked in connections._parked.values():
            parked.collect()
        connections._parked.clear()

    @pytest.mark.parametrize("confirms", [True, False])
    def test_sender_gives_up_and_sends_again_afterwards(
        self, rabbitmq: Place, school: School, confirms: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a process that has sent something
        options = {**rabbitmq.app.conf.broker_transport_options, "confirm_publish": confirms}
        application(rabbitmq.server.url, rabbitmq.queue, CLASSIC, broker_transport_options=options)
        assert send_one()
        run = school.new_run()

        # When it sends during an alarm
        with rabbitmq.server.memory_alarm():
            begun = time.monotonic()
            results = [CeleryDispatch().start(run), *(send_one() for _ in range(20))]
            seconds = time.monotonic() - begun

            # Then it learns at once that nothing is taken; without confirmations, from the second time on
            assert results[1:] == [False] * 20
            assert results[0] is not confirms
            assert seconds < LIMIT_SECONDS
            assert IS_BLOCKED in caplog.text
            # And RabbitMQ has not been left with a connection for each attempt
            listed = rabbitmq.server.control("list_connections", "pid", "state").splitlines()
            assert len(listed) <= 4, listed

        # And the run is carried out once the alarm is over
        until(send_one, "sending again")
        if confirms:
            run.refresh_from_db()
            assert run.sent_at is None
            assert morango_celery.recover_runs() == 1
        rabbitmq.start_worker(2)
        wait_for(run, 120)
        school.assert_intact(run)

    def test_worker_goes_on_and_its_batches_are_sent_afterwards(
        self, rabbitmq: Place, school: School
    ) -> None:
        # Given a worker in the middle of the first batch, which has sent events
        worker = rabbitmq.start_worker(1, DJANGO_SETTINGS_MODULE="tests.brokers.impatient_settings")
        with ExitStack() as until_over:
            with held(first("unit")):
                run = school.new_run()
                assert CeleryDispatch().start(run)
                until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a batch")
                until_over.enter_context(rabbitmq.server.memory_alarm())

            # When it comes to send the next batches during an alarm
            worker.wait_for_log(IS_BLOCKED)

        # Then the run is completed once the alarm is over, and the worker is the same
        wait_for(run, 180)
        school.assert_intact(run)
        assert worker.log().count(" ready.") == 1

    def test_blocked_connection_whose_end_goes_unnoticed_is_given_up(
        self, rabbitmq: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert send_one()
        with rabbitmq.server.memory_alarm():
            assert not send_one()
            (parked,) = connections._parked.values()
            monkeypatch.setattr(connections, "PARKED_SECONDS", 0.0)

            assert not send_one()

            assert not parked.connected
            assert list(connections._parked.values()) != [parked]


class RawMessage(amqp.Message):
    """A message whose properties are these bytes."""

    raw = b""

    def _serialize_properties(self) -> bytes:
        return self.raw


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = text(b"a") + b"F" + table(inner)
    return inner


UNKNOWN = "Received and deleted unknown message"
CONTENT_TYPE, HEADERS, CORRELATION_ID = 1 << 15, 1 << 13, 1 << 10
RAW: dict[str, tuple[bytes, str]] = {
    "no UTF-8 as content type": (
        struct.pack(">H", CONTENT_TYPE) + text(b"\xff\xfe"),
        "The properties of a message can't be read: UnicodeDecodeError",
    ),
    "no UTF-8 as id": (
        struct.pack(">H", CORRELATION_ID) + text(b"\xff"),
        "The properties of a message can't be read: UnicodeDecodeError",
    ),
    "a year that no calendar has": (
        struct.pack(">H", HEADERS) + table(text(b"at") + b"T" + struct.pack(">Q", 2**60)),
        "The properties of a message can't be read: ",
    ),
    "tables in tables": (
        struct.pack(">H", HEADERS) + table(nested(5000)),
        "The properties of a message can't be read: RecursionError",
    ),
    "a header whose name is no UTF-8": (
        struct.pack(">H", HEADERS)
        + table(text(b"task") + b"S" + table(b"x") + text(b"id") + b"S" + table(b"y") + text(b"\xff") + b"V"),
        "its headers' names are not texts",
    ),
    "a number as task": (
        struct.pack(">H", HEADERS) + table(text(b"task") + b"I" + struct.pack(">i", 5)),
        "its task is not a text",
    ),
    "nothing": (b"\0\0", UNKNOWN),
}
"""Properties as bytes, and the text in the worker's log."""


def publish(place: Place, properties: bytes, body: bytes = b"{}", **address: str) -> None:
    message = RawMessage(body)
    message.raw = properties
    host = f"127.0.0.1:{place.server.port}"
    with (
        amqp.Connection(host, userid="guest", password="guest") as connection,
        connection.channel() as channel,
    ):
        arguments = (0, address.get("exchange", ""), address.get("routing_key", place.queue), False, False)
        channel.send_method(spec.Basic.Publish, "Bssbb", arguments, message)


class TestGarbage:
    """Messages from anybody who can reach the broker."""

    def test_garbage_is_refused_and_ends_no_worker(self, rabbitmq: Place, school: School) -> None:
        worker = rabbitmq.start_worker(1)
        for properties, _ in RAW.values():
            publish(rabbitmq, properties)
            publish(rabbitmq, properties, body=b"")

        run = school.new_run()
        assert CeleryDispatch().start(run)

        wait_for(run, 120)
        school.assert_intact(run)
        for _, logged in RAW.values():
            worker.wait_for_log(logged)
        until(lambda: queue_length(LIMIT_SECONDS) == 0, "empty")
        assert worker.log().count(" ready.") == 1

    def test_address_that_is_no_text_does_no_harm(self, rabbitmq: Place) -> None:
        # Given a queue that takes any routing key
        exchange = entities.Exchange(f"any-{rabbitmq.queue}", type="fanout", durable=False, auto_delete=True)
        rabbitmq.declare()
        with rabbitmq.app.connection_for_write() as connection:
            channel = connection.default_channel
            exchange(channel).declare()
            queue = rabbitmq.app.amqp.default_queue(channel)
            queue.bind_to(exchange.name, routing_key="")
            worker = rabbitmq.start_worker(1)

            publish(rabbitmq, b"\0\0", exchange=exchange.name, routing_key=b"\xff\xfe")  # type: ignore[arg-type]  # as no client would

            worker.wait_for_log(UNKNOWN)
        batch = open_batch(100)
        assert CeleryDispatch().batch(batch)
        wait_for(Run.objects.get(pk=batch.run_id), 120)
        assert worker.log().count(" ready.") == 1

    def test_garbage_for_all_workers_ends_none(self, rabbitmq: Place) -> None:
        worker = rabbitmq.start_listening_worker()
        for exchange, key in (("celery.pidbox", ""), ("celeryev", "worker.garbage")):
            for properties, _ in RAW.values():
                for body in (b"[1, 2]", b"\xff"):
                    publish(rabbitmq, properties, body=body, exchange=exchange, routing_key=key)

        batch = open_batch(100)
        assert CeleryDispatch().batch(batch)

        wait_for(Run.objects.get(pk=batch.run_id), 120)
        assert worker.is_running
        replies = until(lambda: rabbitmq.app.control.inspect(timeout=5).ping(), "answering", PATIENCE_SECONDS)
        assert [reply["ok"] for reply in replies.values()] == ["pong"]


class TestQueues:
    def test_messages_are_declared_with_priorities_and_numbered_for_rabbitmq(self, rabbitmq: Place) -> None:
        batches = [open_batch(records) for records in (100, 20_000, 2_000_000)]
        for batch in batches:
            assert CeleryDispatch().batch(batch)
        assert send_one()

        listed = rabbitmq.server.control("list_queues", "name", "arguments")
        (arguments,) = [line for line in listed.splitlines() if line.startswith(rabbitmq.queue)]
        assert "x-max-priority" in arguments
        with rabbitmq.app.connection_for_read() as connection:
            queue = rabbitmq.app.amqp.default_queue(connection.default_channel)
            numbers = [queue.get(no_ack=True).properties["priority"] for _ in range(4)]
        assert numbers == [9, 9, 3, 0]

    def test_queue_that_was_declared_otherwise_fails_no_request(
        self, rabbitmq: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        with rabbitmq.app.connection_for_write() as connection:
            exchange = entities.Exchange(rabbitmq.queue)
            entities.Queue(rabbitmq.queue, exchange, rabbitmq.queue)(connection.default_channel).declare()
        run = Run.objects.create(profile="facilitydata", session_notified=True)

        with caplog.at_level(logging.ERROR):
            assert not CeleryDispatch().start(run)

        assert "PRECONDITION_FAILED" in caplog.text
        assert "x-max-priority" in caplog.text

    def test_length_of_a_queue_that_is_not_there_yet_is_zero(self, rabbitmq: Place) -> None:
        assert queue_length(LIMIT_SECONDS) == 0

    def test_event_that_finds_its_connection_lost_is_sent_by_a_new_one(self, rabbitmq: Place) -> None:
        with rabbitmq.app.connection_for_write() as connection:
            dispatcher = BoundedDispatcher(connection, app=rabbitmq.app)
            dispatcher.send("worker-online")
            connection.connection.sock.close()
            connection.connection.collect()

            dispatcher._silent_until = 0.0
            dispatcher.send("worker-online")

            assert connection.connected
            assert not dispatcher._outbound_buffer
