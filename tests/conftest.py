"""The tests' servers, and the database that the tests run on.

``--database=postgresql`` (the default) or ``--database=sqlite`` chooses for the whole process, because
Morango binds its SQL dialect when it is imported. The servers' addresses are fixed before Django reads its
settings; the servers themselves start when the first test wants them.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import socket
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import django
import pytest
from redis import Redis

from tests.support.processes import LoggedProcess
from tests.support.workers import OURS, StartServer, StartWorker, unavailable
from worker import services

if TYPE_CHECKING:  # models can't be imported yet
    from tests.support.schools import MakeSchool, School

NEEDS_POSTGRESQL = "needs_postgresql"
_PROCESS_FIXTURES = {"celery_worker_process"}
_SMOKE = Path(__file__).parent / "smoke"
LONGEST_ID = 80
"""Length of a value in the id of a test."""

_redis_port = pytest.StashKey[int | None]()
_postgres_port = pytest.StashKey[int | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["postgresql", "sqlite"],
        default="postgresql",
        help="the database that this run's tests use (default: postgresql)",
    )
    parser.addoption("--exhaustive", action="store_true", help="inject every fault, not only a sample")
    parser.addoption("--docker", action="store_true", help="run tests/smoke, and no others, in containers")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the addresses: DATABASE_URL and REDIS_URL if they fit, else ports for servers of our own."""
    config.addinivalue_line(
        "markers", f"{NEEDS_POSTGRESQL}: the test means nothing on SQLite and is left out there"
    )
    config.addinivalue_line("markers", "slow: left out without --exhaustive")
    given_database = os.environ.get("DATABASE_URL", "")
    config.stash[_postgres_port] = None
    if config.getoption("database") == "sqlite":
        os.environ["DATABASE_URL"] = "sqlite://"  # the test database is a file: see below
    elif not given_database.startswith("postgres"):
        port = config.stash[_postgres_port] = services.free_port()
        os.environ["DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    config.stash[_redis_port] = None
    if not os.environ.get("REDIS_URL"):
        port = config.stash[_redis_port] = services.free_port()
        os.environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    os.environ.setdefault("SECRET_KEY", "for-tests-only")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()  # before test modules import models
    os.environ["DJANGO_SETTINGS_MODULE"] = "worker.settings"  # for the processes that tests start
    _let_morango_ask_sqlite()


def _let_morango_ask_sqlite() -> None:
    """Have Morango look up SQLite's limit, as it does once. It leaves a connection open, of which Python 3.13
    warns when it collects the cycle that the connection is part of."""
    from morango.sync.backends.utils import calculate_max_sqlite_variables

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        calculate_max_sqlite_variables()
        gc.collect()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Let the id of a case show values that pytest would number."""
    if not isinstance(val, dict | list | tuple | set | frozenset | BaseException):
        return None
    text = repr(val)
    return None if " at 0x" in text else textwrap.shorten(text, LONGEST_ID, placeholder="...")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("docker") and not all(_SMOKE in item.path.parents for item in items):
        raise pytest.UsageError("Only tests/smoke runs in containers: name that folder beside --docker.")
    left_out = [item for item in items if _is_left_out(config, item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_left_out(config: pytest.Config, item: pytest.Item) -> bool:
    if item.get_closest_marker("slow") is not None and not config.getoption("exhaustive"):
        return True
    return config.getoption("database") == "sqlite" and _is_for_postgresql(item)


def _is_for_postgresql(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker(NEEDS_POSTGRESQL) is not None or not _PROCESS_FIXTURES.isdisjoint(fixtures)


@pytest.fixture
def exhaustive(pytestconfig: pytest.Config) -> bool:
    """Return True if all faults are to be injected, and not a sample of them."""
    chosen: bool = pytestconfig.getoption("exhaustive")
    return chosen


@pytest.fixture(autouse=True)
def _nothing_was_seen_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that one test saw update other rows are like others again in the next one."""
    monkeypatch.setattr("morango_celery.deserialization.exclusive._seen_writing", set())


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start PostgreSQL; pytest-django calls this before it creates the test database."""
    from django.db import connection

    with contextlib.ExitStack() as stack:
        if connection.vendor == "sqlite":
            # A file, so that threads and processes see the same database.
            connection.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("db") / "test.sqlite3")
        elif port := pytestconfig.stash[_postgres_port]:
            try:
                stack.enter_context(services.start_postgres(port=port))
            except services.ServiceError as error:
                unavailable(str(error))
        yield


@pytest.fixture(scope="session")
def _redis_server(pytestconfig: pytest.Config) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if port := pytestconfig.stash[_redis_port]:
            try:
                yield stack.enter_context(services.start_redis(port=port))
            except services.ServiceError as error:
                unavailable(str(error))
            return
        url = os.environ["REDIS_URL"]
        with Redis.from_url(url) as client:
            if client.dbsize():
                pytest.fail(
                    f"The tests empty the database that REDIS_URL names, and this one has keys: {url}",
                    pytrace=False,
                )
        yield url


@pytest.fixture
def redis_url(_redis_server: str) -> str:
    """Return the URL of a Redis without any key, also the broker of the Celery application in this
    process."""
    with Redis.from_url(_redis_server) as client:
        client.flushdb()
    return _redis_server


@pytest.fixture
def database_url(transactional_db: None) -> str:
    """Return the test database as a DATABASE_URL, for other processes."""
    from django.db import connection

    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    login = settings["USER"] + (f":{settings['PASSWORD']}" if settings["PASSWORD"] else "")
    return f"postgresql://{login}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"


@pytest.fixture
def celery_worker_process(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Yield a function that starts a real worker with prefork on the test database, and waits until it is
    ready.

    Its further keyword arguments are environment variables. The workers end with the test.
    """
    started: list[LoggedProcess] = []

    def start(
        concurrency: int = 2,
        *,
        queue: str = "celery",
        command: Sequence[str] = OURS,
        **environment: str,
    ) -> LoggedProcess:
        number = len(started) + 1
        process = LoggedProcess(
            [
                *(*command, "--loglevel=INFO", f"--hostname=test{number}@%h"),
                *(f"--concurrency={concurrency}", f"--queues={queue}"),
                *("--without-gossip", "--without-mingle"),
            ],
            tmp_path / f"worker{number}.log",
            {
                "DATABASE_URL": database_url,
                "REDIS_URL": redis_url,
                "WORKER_SOFT_SHUTDOWN_SECONDS": "1",
                **environment,
            },
        )
        started.append(process)
        process.wait_for_log(" ready.")
        return process

    with _killing(started):
        yield start


@pytest.fixture
def live_http_server(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[StartServer]:
    """Yield a function that starts a real HTTP server on the test database and returns its URL without slash.

    Its keyword arguments are further environment variables (``MORANGO_CELERY_MODE="detach"``).
    """
    started: list[LoggedProcess] = []

    def start(**environment: str) -> str:
        port = services.free_port()
        process = LoggedProcess(
            ["worker", "runserver", "--noreload", f"127.0.0.1:{port}"],
            tmp_path / f"server{len(started) + 1}.log",
            {"DATABASE_URL": database_url, "REDIS_URL": redis_url, **environment},
        )
        started.append(process)
        process.wait_until(lambda: _listens(port), "listening")
        return f"http://127.0.0.1:{port}"

    with _killing(started):
        yield start


@pytest.fixture
def make_school(transactional_db: None) -> MakeSchool:
    """Return a function that commits one more `School`; its arguments are those of the class, but the id."""
    from tests.support.schools import School

    numbers = count(1)

    def make(rows: int = 20, *, mixed: bool = True) -> School:
        return School(hashlib.md5(str(next(numbers)).encode()).hexdigest(), rows, mixed=mixed)

    return make


@pytest.fixture
def school(make_school: MakeSchool) -> School:
    """Commit a school of 300 records and some more that are to be deleted or have errors."""
    return make_school(300)


@contextlib.contextmanager
def _killing(processes: list[LoggedProcess]) -> Iterator[None]:
    """Kill processes at the end: a worker that is told to stop takes more than a second."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
