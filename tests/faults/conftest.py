"""Faults, injected into real workers, servers and messages. Nothing may be lost by them.

`make faults` injects every one (``--exhaustive``); without that option a sample, in seconds. A test
chooses its sample by the fixture `exhaustive`; one that has none to offer is marked ``slow`` and
left out.

`school` and `make_school` commit Store rows, with every fate among them, and know what an undisturbed run
makes of them; all these tests end with `School.assert_intact`. Workers come from
`celery_worker_process`; with ``DJANGO_SETTINGS_MODULE=tests.faults.settings`` they take their limits
from the environment, and die when told to (`tests.faults.deaths`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.faults.servers import Server, own_redis
from tests.support.processes import LoggedProcess
from tests.support.workers import StartWorker

FORGETS = False


@pytest.fixture(params=[FORGETS], ids=["without AOF"])
def redis(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Start a Redis, the broker of this process and of those that it starts."""
    from worker.celery import app

    def look_again() -> None:
        app._pool = app.amqp._producer_pool = None

    with own_redis(durable=request.param) as server:
        monkeypatch.setenv("CELERY_BROKER_URL", server.url)
        look_again()
        yield server
        monkeypatch.undo()
        look_again()


class StartWorkerThere(Protocol):
    def __call__(
        self, concurrency: int = 2, through: str | None = None, **environment: str
    ) -> LoggedProcess: ...


@pytest.fixture
def start_worker(redis: Server, celery_worker_process: StartWorker) -> StartWorkerThere:
    """Return a function that starts a worker with the broker `redis`, or the one at the URL `through`."""

    def start(concurrency: int = 2, through: str | None = None, **environment: str) -> LoggedProcess:
        settings = {
            "REDIS_URL": through or redis.url,
            "CELERY_BROKER_URL": through or redis.url,
            "DJANGO_SETTINGS_MODULE": "tests.faults.outage_settings",
            "MORANGO_CELERY_BATCH_SIZE_RECORDS": "40",
        }
        return celery_worker_process(concurrency, **(settings | environment))

    return start
