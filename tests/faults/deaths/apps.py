"""Kills its worker, as `tests.faults.deaths.plan` has it: right before the n-th event of a task.

Or in the middle of it, if it is a statement: while the server is at it.

An event is a statement, a COMMIT, a message sent, or the end of a task, whose acknowledgement is all that
is missing then. To the world, after one event is before the next.
"""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from typing_extensions import override

from tests.faults.deaths.plan import Watched
from tests.support import death_points


class DeathsConfig(AppConfig):
    name = "tests.faults.deaths"

    @override
    def ready(self) -> None:
        from celery.concurrency.asynpool import AsynPool
        from celery.signals import before_task_publish, task_postrun, task_prerun

        task_prerun.connect(begin)
        task_postrun.connect(end)
        before_task_publish.connect(about_to_send)
        death_points.watch_statements()
        death_points.watch_commits()
        # Otherwise Celery may take five seconds to notice that a process of its pool is gone.
        AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.2})


def begin(task: Any, args: Any, **_: Any) -> None:
    death_points.watch(None)
    death_points.watch(Watched.of(task.name, args))


def end(**_: Any) -> None:
    death_points.before("end of the task")
    death_points.watch(None)


def about_to_send(sender: str, **_: Any) -> None:
    death_points.before(f"message {sender}")
