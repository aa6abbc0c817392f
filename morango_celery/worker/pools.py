"""What a worker of these tasks has to consist of: processes, as Celery's own pool has them.

A time limit ends only a process, and only a process can be lost without what others execute. In threads, of
whatever colour, a record that never returns keeps its place for ever, with the locks that it holds; and one
that kills what touches it ends all batches beside it, each of which counts that as an attempt of its own.
"""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Iterable
from typing import Any

from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo

logger = logging.getLogger(__name__)

GREEN = ("eventlet", "gevent")
"""Pools that change Python's own modules when they are imported."""

NOT_PROCESSES = (
    "a record that never returns is then ended by no time limit, and one that kills what touches it"
)
THREADS_FLAW = f"{NOT_PROCESSES} takes along what is executed beside it"
SINGLE_FLAW = f"{NOT_PROCESSES} ends the whole worker"


class Kind(enum.Enum):
    PROCESSES = "processes"
    SINGLE = "single"
    """The worker's own process: one task at a time."""
    THREADS = "threads"
    """Real or green ones, or what nobody knows."""


def kind(pool: Any) -> Kind:
    """Of a pool as Celery is told it: a name, ``module:Class``, or the class.

    :raises ImportError, AttributeError: there is no such pool
    """
    if pool in GREEN:
        return Kind.THREADS
    implementation = get_implementation(pool)
    if issubclass(implementation, Prefork):
        return Kind.PROCESSES
    return Kind.SINGLE if issubclass(implementation, Solo) else Kind.THREADS


def require_processes(worker: Any, tasks: Iterable[str]) -> None:
    """End a worker whose pool is none of processes, if messages of these tasks are sent to its queues.

    What else a project has Celery do may have pools as it likes, in workers of other queues.

    :raises SystemExit: Celery would only log another exception
    """
    queues = _queues_of(worker.app, tasks) & set(worker.app.amqp.queues.consume_from)
    if not queues:
        return
    match kind(worker.pool_cls):
        case Kind.THREADS:
            sys.exit(
                f"error: This worker consumes {', '.join(sorted(queues))}, where morango_celery's tasks are, "
                f"with the pool {worker.pool_cls.__module__}; {THREADS_FLAW}. Start it with --pool=prefork "
                "and without another worker_pool in Celery's settings; or, if it is for other tasks, send "
                "morango_celery's to a queue of their own (task_routes) that it doesn't consume."
            )
        case Kind.SINGLE:
            logger.warning("The pool is solo; %s. Start the worker with --pool=prefork.", SINGLE_FLAW)


def _queues_of(app: Any, tasks: Iterable[str]) -> set[str]:
    # On a copy, for a queue that is asked for is added to those that are consumed
    router = app.amqp.Router(queues=app.amqp.Queues(dict(app.amqp.queues)))
    return {router.route({}, task)["queue"].name for task in tasks}
