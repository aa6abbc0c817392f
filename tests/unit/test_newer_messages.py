"""Messages of a newer form: held for a moment, requeued, and named once in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from morango_celery.conf import settings
from morango_celery.messaging.task_names import START_RUN
from morango_celery.version import FORM, FORM_HEADER, PAYLOAD_FORM, PAYLOAD_FORM_HEADER
from morango_celery.worker import newer_messages
from morango_celery.worker.newer_messages import HELD_SECONDS, MAX_HELD, NewerMessages, is_newer


@dataclass
class FakeMessage:
    headers: dict[str, Any]
    ends: list[str] = field(default_factory=list)

    def reject_log_error(self, logger: object, errors: object, requeue: bool) -> None:
        self.ends.append("requeued" if requeue else "rejected")

    def ack_log_error(self, logger: object, errors: object) -> None:
        self.ends.append("dropped")


class FakeConsumer:
    """The consumer's clock and its number of messages to take at a time."""

    connection_errors = ()

    def __init__(self) -> None:
        self.qos = self.timer = self
        self.more = 0
        self.due: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def increment_eventually(self) -> None:
        self.more += 1

    def decrement_eventually(self) -> None:
        self.more -= 1

    def call_after(self, seconds: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.due.append((seconds, call, arguments))

    def let_time_pass(self) -> None:
        due, self.due = self.due, []
        for _, call, arguments in due:
            call(*arguments)


def message(form: object = FORM + 1, name: str = FORM_HEADER, task_id: str = "m") -> FakeMessage:
    return FakeMessage({"task": START_RUN, "id": task_id, name: form})


def test_only_messages_of_newer_forms_are_newer() -> None:
    assert is_newer(message())
    assert is_newer(message(PAYLOAD_FORM + 1, PAYLOAD_FORM_HEADER))
    for known in (message(FORM), message(0), message(None), FakeMessage({"task": START_RUN, "id": "m"})):
        assert not is_newer(known)
    assert not is_newer(message(PAYLOAD_FORM, PAYLOAD_FORM_HEADER))
    assert not is_newer(
        FakeMessage({FORM_HEADER: FORM + 1})
    )  # of Celery's first protocol, which we don't send


def test_newer_message_is_held_for_a_moment_and_then_requeued() -> None:
    consumer = FakeConsumer()
    newer, one = NewerMessages(consumer), message()
    newer.hold(one)
    assert one.ends == []
    assert [seconds for seconds, *_ in consumer.due] == [HELD_SECONDS]
    consumer.let_time_pass()
    assert one.ends == ["requeued"]


def test_held_messages_take_no_place_of_others_up_to_a_limit() -> None:
    consumer = FakeConsumer()
    newer = NewerMessages(consumer)
    for number in range(MAX_HELD + 5):
        newer.hold(message(task_id=str(number)))
    assert consumer.more == MAX_HELD
    consumer.let_time_pass()
    assert consumer.more == 0


def test_lost_connection_takes_held_messages_along() -> None:
    """The broker delivers them again; their old tags mean nothing on the new connection."""
    consumer = FakeConsumer()
    newer, one = NewerMessages(consumer), message()
    newer.hold(one)
    newer.begin_connection()
    consumer.more = 0  # Celery begins anew
    consumer.let_time_pass()
    assert (one.ends, consumer.more) == ([], 0)


def test_each_kind_and_form_has_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    newer = NewerMessages(FakeConsumer())
    with caplog.at_level(logging.WARNING, logger=newer_messages.__name__):
        for _ in range(3):
            newer.hold(message())
        newer.hold(message(FORM + 2))
    texts = [record.getMessage() for record in caplog.records]
    assert [f"form {FORM + 1}," in text for text in texts] == [True, False]
    assert f"form {FORM + 2}," in texts[1]
    assert all(START_RUN in text for text in texts)


def test_message_about_the_ledger_that_nobody_takes_is_dropped_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a clock, a message about a run and one of a project's own task, and no newer worker
    now = 0.0
    monkeypatch.setattr(newer_messages, "monotonic", lambda: now)
    newer = NewerMessages(FakeConsumer())
    ours, project = message(), message(PAYLOAD_FORM + 1, PAYLOAD_FORM_HEADER, "other")

    # When they come again and again, then they are held for as long as a message counts as under way
    while now <= settings.STALLED_AFTER_SECONDS:
        newer.hold(ours)
        newer.hold(project)
        now += HELD_SECONDS
    assert ours.ends == []

    # ... and then the first one is dropped, since the ledger has its run; the other one nobody else has
    newer.hold(ours)
    newer.hold(project)
    assert (ours.ends, project.ends) == (["dropped"], [])


def test_message_with_an_id_of_long_ago_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages that start one run have the same id."""
    now = 0.0
    monkeypatch.setattr(newer_messages, "monotonic", lambda: now)
    newer = NewerMessages(FakeConsumer())
    newer.hold(message())
    now = 2.0 * settings.STALLED_AFTER_SECONDS
    again = message()
    newer.hold(again)
    assert again.ends == []


def test_few_ids_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newer_messages, "MAX_REMEMBERED", 2)
    newer = NewerMessages(FakeConsumer())
    for task_id in "abc":
        newer.hold(message(task_id=task_id))
    assert list(newer._seen) == ["b", "c"]
