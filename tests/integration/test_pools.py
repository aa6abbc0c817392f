"""A worker's pool, as its command line has it: real workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import LoggedProcess

pytestmark = [pytest.mark.needs_postgresql, pytest.mark.django_db(transaction=True)]

Start = Callable[..., LoggedProcess]


@pytest.fixture
def start(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts a worker with these arguments; it ends with the test."""
    started: list[LoggedProcess] = []

    def start(*arguments: str) -> LoggedProcess:
        started.append(
            LoggedProcess(
                [*("celery", "-A", "worker", "worker", "--loglevel=INFO", "--concurrency=1"), *arguments],
                tmp_path / "worker.log",
                {"DATABASE_URL": database_url, "REDIS_URL": redis_url},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_worker_of_threads_refuses_to_start(start: Start) -> None:
    worker = start("--pool=threads")

    assert worker.wait_until_ended() == 1

    assert "error: This worker consumes celery, where morango_celery's tasks are" in worker.log()
    assert "--pool=prefork" in worker.log()
    assert " ready." not in worker.log()


def test_worker_of_other_queues_may_have_threads(start: Start) -> None:
    start("--pool=threads", "--queues=mail").wait_for_log(" ready.")


def test_worker_of_one_process_says_what_it_lacks(start: Start) -> None:
    worker = start("--pool=solo")

    worker.wait_for_log(" ready.")

    assert "The pool is solo; a record that never returns" in worker.log()
