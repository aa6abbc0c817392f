"""System checks of Celery's settings for RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from django.db import connection
from kombu.entity import Queue
from pytest_django import Settings

from tests.unit.checks import found
from worker.celery import app as deployed

SOUND = {
    "broker_url": "amqp://morango:Zr4Qk0vWm@rabbitmq//",
    "broker_transport_options": {"confirm_publish": True, "max_retries": 1},
    "task_queue_max_priority": 9,
    "task_time_limit": 300,
    "task_soft_time_limit": 270,
}


@pytest.fixture
def rabbitmq(settings: Settings) -> Iterator[Callable[..., None]]:
    """Return a function that makes this process's Celery application, valid but for the given options."""
    if connection.vendor == "sqlite":
        settings.MORANGO_CELERY = {"IN_PROCESS": False}

    def configure(**options: Any) -> None:
        Celery("host", fixups=[], changes={**SOUND, **options}).set_current()

    yield configure
    deployed.set_current()


def test_sound_options_pass_without_a_message(rabbitmq: Callable[..., None]) -> None:
    rabbitmq()
    assert found() == {}


def test_settings_of_this_package_are_sound(rabbitmq: Callable[..., None]) -> None:
    app = Celery("host", fixups=[], broker="amqp://rabbitmq//")
    app.config_from_object("morango_celery.celery_settings", namespace="CELERY")
    app.set_current()
    assert found() == {}


@pytest.mark.parametrize(
    ("options", "missing", "hint"),
    [
        (None, "no confirm_publish and no max_retries: a message that it doesn't take counts as sent", True),
        ({"confirm_publish": True}, "no max_retries: a process that can't connect tries to for ever", False),
        ({"max_retries": 1, "confirm_publish": False}, "no confirm_publish: a message", True),
    ],
)
def test_messages_that_rabbitmq_does_not_take_are_to_be_noticed(
    rabbitmq: Callable[..., None], options: dict[str, Any] | None, missing: str, hint: bool
) -> None:
    rabbitmq(broker_transport_options=options)
    (text,) = found()["W015"]
    assert f"broker_transport_options have {missing}" in text
    assert ('"confirm_publish": True' in text) is hint


@pytest.mark.parametrize("highest", [None, 5])
def test_queue_without_enough_priorities_is_a_warning(
    rabbitmq: Callable[..., None], highest: int | None
) -> None:
    rabbitmq(task_queue_max_priority=highest)
    (text,) = found()["W016"]
    assert "The queue 'celery' is declared without x-max-priority=9" in text
    assert "delete the present one first" in text


def test_queue_that_is_routed_to_counts(rabbitmq: Callable[..., None]) -> None:
    make: Any = Queue  # it has no types
    rabbitmq(
        task_queue_max_priority=None,
        task_queues=[make("celery"), make("runs", max_priority=9)],
        task_routes={"morango_celery.*": {"queue": "runs"}},
    )
    assert found() == {}


def test_quorum_queue_with_priorities_is_refused(rabbitmq: Callable[..., None]) -> None:
    rabbitmq(task_default_queue_type="quorum")
    (text,) = found()["E012"]
    assert "'celery' is a quorum queue with x-max-priority" in text

    rabbitmq(task_default_queue_type="quorum", task_queue_max_priority=None)
    assert found() == {}


def test_time_limit_that_rabbitmq_does_not_wait_for_is_a_warning(rabbitmq: Callable[..., None]) -> None:
    rabbitmq(task_time_limit=1800, task_soft_time_limit=1700)
    (text,) = found()["W017"]
    assert "task_time_limit (1800 s) is not below RabbitMQ's consumer_timeout (1800 s" in text

    rabbitmq(task_time_limit=1799, task_soft_time_limit=1700)
    assert found() == {}


def test_another_broker_needs_none_of_this(rabbitmq: Callable[..., None]) -> None:
    rabbitmq(
        broker_url="redis://redis/0",
        broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 5},
        task_queue_max_priority=None,
    )
    assert found() == {}
