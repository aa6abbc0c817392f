"""Payloads with a worker as deployed: processes of its own, messages and results in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from django.db import transaction
from redis import Redis

from tests.payloads.project import echo, join, join_all, replaced, succeed_later
from tests.support.processes import LoggedProcess

LARGE = [f"{number:032x}" for number in range(2000)]
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.needs_postgresql,
]

StartProject = Callable[[], LoggedProcess]


@pytest.fixture
def start_project(
    shared_settings: dict[str, Any],
    redis_url: str,
    database_url: str,
    tmp_path: Path,
) -> Iterator[StartProject]:
    """Yield a function that starts the project's worker and waits until it is ready."""
    started: list[LoggedProcess] = []

    def start() -> LoggedProcess:
        process = LoggedProcess(
            [
                *("celery", "-A", "tests.payloads.project", "worker", "--loglevel=INFO", "--concurrency=2"),
                *("--without-gossip", "--without-mingle", "--hostname=payloads@%h"),
            ],
            tmp_path / "worker.log",
            {
                "DJANGO_SETTINGS_MODULE": "tests.payloads.settings",
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "PAYLOAD_SETTINGS": json.dumps(shared_settings),
            },
        )
        started.append(process)
        process.wait_for_log(" ready.")
        return process

    yield start
    for process in started:
        process.kill()


def test_every_way_to_send_a_task_resolves_its_arguments(
    start_project: StartProject, redis_url: str, tmp_path: Path
) -> None:
    # Given messages sent in every way that Celery has, before there is a worker
    more = ["more"] * 3000
    sent = {
        "delay": (echo.delay(LARGE, name=more), [[LARGE], {"name": more}]),
        "apply_async": (echo.apply_async([LARGE], {"name": more}, countdown=0.1), [[LARGE], {"name": more}]),
        "group": (group(join.s(LARGE), join.s(more)).apply_async(), [LARGE, more]),
        "chain": (chain(join.s(LARGE), join.s(more), join.s(LARGE)).apply_async(), LARGE + more + LARGE),
        "chord": (
            chord([join.s(LARGE), join.s(more)], join_all.s(LARGE)).apply_async(),
            LARGE + more + LARGE,
        ),
        "retries": (succeed_later.delay(LARGE, more=more), None),
        "replace": (replaced.delay(LARGE), [*LARGE, "replaced"]),
    }
    with transaction.atomic():
        echo.delay_on_commit(LARGE)
    with Redis.from_url(redis_url) as client:
        waiting = [bytes(raw) for raw in client.lrange("celery", 0, -1)]
    assert len(waiting) == 10
    assert max(map(len, waiting)) < 4096

    # When a worker carries it out
    worker = start_project()
    results = {way: result.get(timeout=30) for way, (result, _) in sent.items()}

    # Then every task had the values themselves
    ids, others, args, _ = results["retries"]
    assert (ids, others) == (LARGE, more)
    assert set(args[0]) == {"payload", "bytes"}
    assert {way: results[way] for way in sent if way != "retries"} == {
        way: expected for way, (_, expected) in sent.items() if way != "retries"
    }
    worker.wait_until(lambda: worker.log().count("payloads.project.echo") >= 6, "carried out what was sent")


@pytest.mark.parametrize("shared_settings", ["files"], indirect=True)
def test_task_waits_for_a_store_that_cannot_be_reached(
    start_project: StartProject, shared_settings: dict[str, Any]
) -> None:
    # Given a message with a payload in a folder that is not mounted
    result = echo.delay(LARGE)
    folder = Path(shared_settings["LOCATION"])
    away = folder.rename(folder.with_name("away"))

    # When a worker tries it, and the folder comes back
    worker = start_project()
    worker.wait_for_log("The folder of payloads can't be used")
    away.rename(folder)

    # Then the task is carried out all the same
    assert result.get(timeout=30) == [[LARGE], {}]
    assert "Retry in 1s" in worker.log()
