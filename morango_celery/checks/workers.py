"""System checks of Celery's settings for workers, as any process sees them.

A worker's command line may override these: `morango_celery.worker.pools` looks at it when a worker starts.
"""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (as Django names it)

from morango_celery.api import runs_in_process
from morango_celery.conf import COMPARE, problems, settings
from morango_celery.db.dialect import dialect
from morango_celery.worker.pools import SINGLE_FLAW, THREADS_FLAW, Kind, kind


def are_used() -> bool:
    """Return True if runs are sent to workers at all."""
    return not problems() and not runs_in_process()


@register("morango_celery")
def check_pool(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that ``worker_pool`` is a pool of processes."""
    pool = current_app.conf.worker_pool
    if not are_used() or pool is None:
        return []
    try:
        found = kind(pool)
    except (ImportError, AttributeError, ValueError) as error:
        return [_unfit(f"Celery's worker_pool is {pool!r}, which can't be imported: {error}.")]
    match found:
        case Kind.PROCESSES:
            return []
        case Kind.SINGLE:
            return [
                Warning(
                    f"Celery's worker_pool is {pool!r}; {SINGLE_FLAW}.",
                    hint='Set worker_pool (CELERY_WORKER_POOL) to "prefork", or leave it out.',
                    id="morango_celery.W003",
                )
            ]
        case Kind.THREADS:
            return [_unfit(f"Celery's worker_pool is {pool!r}; {THREADS_FLAW}.")]


def _unfit(text: str) -> Error:
    return Error(
        text,
        hint='Set worker_pool (CELERY_WORKER_POOL) to "prefork", or leave it out. Workers of other queues '
        "may be given another pool on their command line.",
        id="morango_celery.E006",
    )


@register("morango_celery")
def check_single_writer(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse several workers on SQLite, which has one writer."""
    if problems() or not dialect().has_one_writer or settings.IN_PROCESS is not False:
        return []
    return [
        Error(
            "MORANGO_CELERY['IN_PROCESS'] is False, but the database is SQLite, which has one writer: "
            'workers and the server would wait for each other, and fail with "database is locked".',
            hint="Leave IN_PROCESS out, so that runs are carried out where syncs arrive; or use PostgreSQL.",
            id="morango_celery.E009",
        )
    ]


@register("morango_celery")
def check_comparing(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if syncs are to be compared, but no worker is there to do it."""
    if problems() or settings.MODE != COMPARE or are_used():
        return []
    return [
        Warning(
            "MORANGO_CELERY['MODE'] is 'compare', but runs are carried out in the process that received the "
            "sync: no sync is compared, since its request would have to wait for that.",
            hint="Compare with `manage.py compare_with_morango`, here or on a restored backup; or use "
            "PostgreSQL, a broker and workers.",
            id="morango_celery.W013",
        )
    ]


@register("morango_celery")
def check_time_limits(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if a task has no time limit, or no soft one before it, in which it can still give up."""
    if not are_used():
        return []
    hard, soft = current_app.conf.task_time_limit, current_app.conf.task_soft_time_limit
    if not hard:
        text = "Celery has no task_time_limit: a record that never returns keeps its worker for ever."
    elif not soft:
        text = (
            f"Celery has a task_time_limit ({hard} s), but no task_soft_time_limit: a batch that takes too "
            "long costs workers before it is split."
        )
    elif soft >= hard:
        text = (
            f"Celery's task_soft_time_limit ({soft} s) is not below its task_time_limit ({hard} s): a batch "
            "that takes too long costs workers before it is split."
        )
    else:
        return []
    hint = (
        "Set task_time_limit, and task_soft_time_limit half a minute below it, such as 300 and 270 seconds."
    )
    return [Warning(text, hint=hint, id="morango_celery.W004")]
