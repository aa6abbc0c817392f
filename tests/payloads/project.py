"""A host project's Celery application, with tasks of the kinds that it may have."""

from __future__ import annotations

from typing import Any

from celery import Celery
from django.conf import settings

from morango_celery.payloads import PayloadTask

app = Celery("tests.payloads.project", set_as_current=False)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    broker_url=settings.REDIS_URL,
    result_backend=settings.REDIS_URL,
    task_ignore_result=False,
    task_track_started=False,
)


@app.task(base=PayloadTask)
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Return the arguments."""
    return [list(args), kwargs]


@app.task(base=PayloadTask)
def join(*lists: list[str]) -> list[str]:
    return [one for some in lists for one in some]


@app.task(base=PayloadTask)
def join_all(lists: list[list[str]], more: list[str]) -> list[str]:
    return [one for some in lists for one in some] + more


@app.task(base=PayloadTask, bind=True, max_retries=3, default_retry_delay=0)
def succeed_later(self: Any, ids: list[str], *, more: Any = None) -> list[Any]:
    """Retry twice, then return the arguments, and those of the message."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [ids, more, self.request.args, self.request.headers]


@app.task(base=PayloadTask, bind=True)
def replaced(self: Any, ids: list[str]) -> None:
    """Replace this task by another one."""
    raise self.replace(join.s(ids, ["replaced"]))


@app.task(base=PayloadTask, bind=True)
def itself(self: Any, value: Any, again: bool = True) -> Any:
    """Return the message's argument, handed on by a direct call."""
    return self(self.request.args[0], again=False) if again else value


@app.task(base=PayloadTask, inline_arguments=("small",))
def partly_inline(small: Any, large: Any) -> list[Any]:
    return [small, large]


@app.task(base=PayloadTask, inline_arguments=True)
def wholly_inline(first: Any, second: Any = None) -> list[Any]:
    return [first, second]


@app.task
def plain(value: Any) -> Any:
    """Return the value; the task is of another class."""
    return value
