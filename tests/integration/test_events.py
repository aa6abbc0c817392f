"""Events that a worker tells monitors: in few messages, and none is lost at its end."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from morango.models import Store
from redis import Redis
from redis.client import PubSub

import morango_celery
from morango_celery.celery_compat import reuse_clients
from morango_celery.worker.event_dispatcher import GATHERING_SECONDS, BoundedDispatcher, GathersEvents
from tests.support import factories
from tests.support.waiting import child_that_waits_for_a_lock, held, until
from tests.support.workers import StartWorker
from worker.celery import app
from worker.school.models import PROFILE


@pytest.fixture
def messages(redis_url: str) -> Iterator[Callable[[], list[list[str]]]]:
    """Return the types of the events in each message that was published since."""
    with Redis.from_url(redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.psubscribe("*celeryev*")
        listener.get_message(timeout=60)
        found: list[list[str]] = []
        yield lambda: read_all(listener, found)


def read_all(listener: PubSub, found: list[list[str]]) -> list[list[str]]:
    while (message := listener.get_message()) is not None:
        envelope = json.loads(message["data"])
        events = json.loads(base64.b64decode(envelope["body"]))
        found.append([event["type"] for event in (events if isinstance(events, list) else [events])])
    return found


class Hub:
    """A stand-in for a worker's event loop: its time passes when a test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        self.due.append((seconds, callback))

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for _, callback in due:
            callback()


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def dispatcher(redis_url: str, hub: Hub) -> Iterator[BoundedDispatcher]:
    """Yield a worker's event dispatcher, which gathers the events."""
    with app.connection_for_write() as connection:
        options: dict[str, Any] = {"buffer_group": ["task"], "on_send_buffered": hub.pass_time}
        dispatcher = BoundedDispatcher(connection, app=app, **options)
        dispatcher.gather_in(hub)
        yield dispatcher


Messages = Callable[[], list[list[str]]]


def test_events_of_tasks_are_published_together(
    dispatcher: BoundedDispatcher, hub: Hub, messages: Messages
) -> None:
    sent = ["task-received", "task-started", "task-succeeded"]
    for name in sent:
        dispatcher.send(name, uuid="1")

    assert [seconds for seconds, _ in hub.due] == [GATHERING_SECONDS]
    dispatcher.send("worker-heartbeat")
    until(lambda: messages() == [["worker-heartbeat"]], "published by itself")
    hub.pass_time()
    until(lambda: messages() == [["worker-heartbeat"], sent], "published together")


def test_later_events_are_published_later(
    dispatcher: BoundedDispatcher, hub: Hub, messages: Messages
) -> None:
    for name in ("task-started", "task-succeeded"):
        dispatcher.send(name, uuid="1")
        hub.pass_time()

    until(lambda: messages() == [["task-started"], ["task-succeeded"]], "published one by one")


def test_events_of_other_threads_are_not_gathered(dispatcher: BoundedDispatcher, hub: Hub) -> None:
    published: list[None] = []
    dispatcher.on_send_buffered = lambda: published.append(None)
    dispatcher.gather_in(hub)

    thread = threading.Thread(target=dispatcher.send, args=("task-succeeded",), kwargs={"uuid": "1"})
    thread.start()
    thread.join(60)

    assert (len(published), hub.due) == (1, [])


@pytest.mark.parametrize(("state", "published"), [(bootsteps.CLOSE, True), (bootsteps.RUN, False)])
def test_worker_publishes_gathered_events_at_its_end_but_not_when_it_reconnects(
    state: int, published: bool, dispatcher: BoundedDispatcher, hub: Hub, messages: Messages
) -> None:
    consumer = SimpleNamespace(
        event_dispatcher=dispatcher, hub=hub, blueprint=SimpleNamespace(state=state), steps=[]
    )
    dispatcher.send("task-started", uuid="1")
    GathersEvents(consumer).stop(consumer)
    dispatcher.send("task-succeeded", uuid="1")
    dispatcher.send("worker-offline")  # which is published at once, and last

    until(lambda: ["worker-offline"] in messages(), "published")
    assert messages()[:-1] == ([["task-started"], ["task-succeeded"]] if published else [])


def test_gathered_events_outlive_a_connection(
    dispatcher: BoundedDispatcher, hub: Hub, messages: Messages
) -> None:
    dispatcher.send("task-started", uuid="1")
    with app.connection_for_write() as connection:
        next_one = BoundedDispatcher(connection, app=app, buffer_group=["task"])
        dispatcher.disable()
        next_one.extend_buffer(dispatcher)
        next_one.flush()

    hub.pass_time()  # the first one has nothing to say any more
    until(lambda: messages() == [["task-started"]], "published once")


@pytest.mark.django_db(transaction=True)
@pytest.mark.needs_postgresql
def test_monitors_hear_of_the_last_task_of_a_worker(
    celery_worker_process: StartWorker, messages: Messages
) -> None:
    # Given a worker in the middle of its last task
    factories.fill_store(50)
    worker = celery_worker_process(concurrency=1, WORKER_SOFT_SHUTDOWN_SECONDS="60")
    record = Store.objects.filter(model_name="attempt").earliest("id")
    with held(record.id):
        morango_celery.deserialize(PROFILE, in_process=False)
        until(lambda: child_that_waits_for_a_lock(worker.pid), "in the middle of a task")

        # When it is told to stop, and the task ends after its event loop
        os.kill(worker.pid, signal.SIGTERM)
        until(lambda: ["worker-offline"] in messages(), "at its end")
    assert worker.wait_until_ended() == 0, worker.log()

    # Then the end of the task was told
    types = [name for message in messages() for name in message]
    assert types.count("task-started") == types.count("task-succeeded") >= 1


def test_channel_keeps_its_client_as_long_as_its_connections(redis_url: str) -> None:
    reuse_clients()
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
            assert channel.client is not first  # it keeps a connection of its own
            assert first.ping()
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()
