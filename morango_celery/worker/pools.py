"""Pools of workers: these tasks need processes, as in Celery's own prefork pool.

A time limit can end only a process, and only a process can be lost without harm to the tasks of others. In
real or green threads, a record that never returns keeps its thread and its locks for ever. A record that
kills its worker ends all batches beside it, and each of them counts that as an attempt of its own.
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
    """Real or green threads, or an unknown implementation."""


def kind(pool: Any) -> Kind:
    """Return the kind of a pool.

    :param pool: as Celery takes it: a name, ``module:Class``, or the class
    :raises ImportError, AttributeError: there is no such pool
    """
    if pool in GREEN:
        return Kind.THREADS
    implementation = get_implementation(pool)
    if issubclass(implementation, Prefork):
        return Kind.PROCESSES
    return Kind.SINGLE if issubclass(implementation, Solo) else Kind.THREADS


def require_processes(worker: Any, tasks: Iterable[str]) -> None:
    """End a worker with a pool of threads, and warn of a solo one, if its queues get messages of these tasks.

    A project's other tasks may have any pool, in workers of other queues.

    :raises SystemExit: the pool is one of threads; Celery would only log another exception
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
    # On a copy: looking a queue up adds it to those that the worker consumes
    router = app.amqp.Router(queues=app.amqp.Queues(dict(app.amqp.queues)))
    return {router.route({}, task)["queue"].name for task in tasks}
