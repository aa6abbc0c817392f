"""Context of the task that this process executes: its message, its limits, and the signals that end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from celery import current_task
from django.db import DatabaseError, InterfaceError, connection

from morango_celery.celery_compat import (
    SOFT_LIMIT_SIGNAL,
    TERM_SIGNAL,
    process_is_ended,
    soft_limit_handler,
)
from morango_celery.errors import SoftTimeLimitReached
from morango_celery.printable import printable
from morango_celery.runs.limits import Limits
from morango_celery.runs.message import ID_CHARACTERS, WORKER_CHARACTERS, Message

_worker_limits: tuple[float | None, float | None] = (None, None)
"""The hard and the soft time limit that this worker was started with, in seconds."""


def note_limits(worker: Any) -> None:
    """Note the time limits that a worker was started with, before it starts its processes."""
    global _worker_limits
    _worker_limits = worker.time_limit, worker.soft_time_limit


class Expected:
    """A base class for tasks whose retries the ledger expects."""

    request: Any
    expect_retry: Any = None
    """A function that notes in how many seconds a message is to come. Its arguments: the primary key of the
    run or batch, the message that is retried, and the seconds."""

    def retry(self, *arguments: Any, countdown: float | None = None, **options: Any) -> Any:
        """Retry as Celery does, and note it in the ledger: recovery replaces the message if it gets lost."""
        pk = next(iter(self.request.args or ()), None)
        if self.expect_retry is not None and isinstance(pk, int) and countdown is not None:
            self.expect_retry(pk, message_of(self.request), countdown)
        return super().retry(*arguments, countdown=countdown, **options)  # type: ignore[misc]  # Celery's


def message_of(request: Any) -> Message:
    """Return a task's message, reduced to the parts that attempts are counted by."""
    is_redelivered = bool((request.delivery_info or {}).get("redelivered"))
    worker = f"{printable(request.hostname or '', WORKER_CHARACTERS // 2)} {os.getpid()}".strip()
    return Message(str(request.id or "")[:ID_CHARACTERS], request.retries, is_redelivered, worker)


def current_limits() -> Limits | None:
    """Return the limits for transactions of the task that this process executes; None outside of a task."""
    request = current_task.request if current_task else None
    if request is None or request.called_directly or request.is_eager:
        return None
    hard, soft = request.timelimit or (None, None)
    task, conf = current_task, current_task.app.conf
    return Limits.of_task(
        hard or task.time_limit or _worker_limits[0] or conf.task_time_limit,
        soft or task.soft_time_limit or _worker_limits[1] or conf.task_soft_time_limit,
    )


@contextmanager
def stop_is_noted(note_stop: Callable[[], None], ask_for_recovery: Callable[[], object]) -> Iterator[None]:
    """Note the stop in the ledger and ask for recovery if a signal ends this process inside the block.

    The signal may come from Celery, a supervisor or an operator. One case is a worker that has lost the
    broker and cancels tasks that it can't acknowledge any more.

    :param note_stop: notes in the ledger that this process doesn't work at it any more
    :param ask_for_recovery: asks another worker for recovery
    """
    try:
        yield
    except BaseException:  # the handler's SystemExit may have become any other error on its way
        if process_is_ended():
            signal.signal(TERM_SIGNAL, signal.SIG_IGN)  # a second one would end it in the middle of this
            with suppress(DatabaseError, InterfaceError):
                if not connection.in_atomic_block:
                    connection.close()  # the signal may have come in the middle of a statement
                note_stop()
            ask_for_recovery()
        raise


@contextmanager
def out_of_reach_of_models() -> Iterator[None]:
    """Let the soft time limit raise a `BaseException`: no ``except Exception`` of a model's code catches it.

    Only a process of the prefork pool has that limit. There, the handler of its signal is billiard's.
    """
    if SOFT_LIMIT_SIGNAL is None or signal.getsignal(SOFT_LIMIT_SIGNAL) is not soft_limit_handler:
        yield
        return
    signal.signal(SOFT_LIMIT_SIGNAL, _raise_soft_time_limit)
    try:
        yield
    finally:
        signal.signal(SOFT_LIMIT_SIGNAL, soft_limit_handler)


def _raise_soft_time_limit(*_: Any) -> NoReturn:
    raise SoftTimeLimitReached
