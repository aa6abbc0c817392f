"""The demo as a user of ``make demo`` sees it; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from django.db import connections
from redis import Redis

from morango_celery.db.driver import is_psycopg3
from tests.support import factories
from tests.support.processes import ROOT
from worker.demo.attachment import device_attached
from worker.demo.databases import empty_postgres, empty_redis
from worker.demo.processes import StepError
from worker.demo.school import EARLY_RECORDS, MODELS, School, create
from worker.demo.verify import Verification, compare_app_rows
from worker.school.models import Lesson, Unit

EXCEPTIONS = {
    "learner, its username is taken": "IntegrityError",
    "learner, its unit is another school's": "WrongSchoolError",
    "lesson, its title is too long": "ValidationError",
    "lesson, it opens at no point in time": "ValidationError",
    "attempt, its score is no number": "ValidationError",
    "attempt, its learner does not exist": "IntegrityError",
    "attempt, its answer holds a NUL character": "DataError" if is_psycopg3() else "ValueError",
    "attempt, its kind is unknown": "ValidationError",
    "attempt, its time is missing": "ValidationError",
    "attempt, it is cut off in the middle": "JSONDecodeError",
    "attempt, its score is out of range": "ValidationError",
    "feedback, its attempt is broken": "ValidationError",
}


class Demo:
    """A running demo whose temporary files, and those of its processes, are in `folder`."""

    def __init__(self, folder: Path, output_path: Path, *arguments: str) -> None:
        self.folder = folder
        self._output = output_path
        ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE")
        inherited = {name: value for name, value in os.environ.items() if name not in ours}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker.demo", *arguments],
                cwd=ROOT,
                env={**inherited, "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str, timeout_seconds: float = 60) -> None:
        deadline = time.monotonic() + timeout_seconds
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def wait(self, timeout_seconds: float = 150) -> int:
        return self.process.wait(timeout_seconds)

    def processes(self) -> list[psutil.Process]:
        """Return the demo and all running processes that it has started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                # A server that sets its title overwrites its environment, but works in its folder.
                places = [Path(process.environ().get("TMPDIR", "/")), Path(process.cwd())]
                if any(place.is_relative_to(self.folder) for place in places):
                    found.append(process)
        return found

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def folder() -> Iterator[Path]:
    """Open to PostgreSQL, which is another user when we are root.

    Not below pytest's own folder: each session of pytest closes that to others again.
    """
    with TemporaryDirectory(prefix="test-demo-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def demo(folder: Path, tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(folder, tmp_path / "demo.out", "--records", "300")
    yield demo
    if demo.process.poll() is None:
        demo.process.terminate()
        demo.wait()
    for process in demo.processes():
        process.kill()


@pytest.mark.needs_postgresql
def test_demo_shows_a_sync_and_verifies_it(demo: Demo) -> None:
    assert demo.wait() == 0, demo.output

    table = {
        name: [int(number.replace(",", "")) for number in numbers.split()]
        for name, numbers in re.findall(r"^(\w+) +((?:[\d,]+ *){4})$", demo.output, re.MULTILINE)
    }
    assert list(table) == ["unit", "learner", "lesson", "attempt", "feedback", "total"]
    assert table["total"] == [300, 281, 7, 12]  # sent, saved, deleted, failed
    assert [sum(column) for column in zip(*list(table.values())[:-1], strict=True)] == table["total"]
    errors = re.findall(r"^(\w+) [0-9a-f]{8}, (.+):\n    (\w+): \S", demo.output, re.MULTILINE)
    assert {f"{model}, {how}": exception for model, how, exception in errors} == EXCEPTIONS
    (rate,) = re.findall(r"([\d,]+) records a second", demo.output)
    assert int(rate.replace(",", "")) > 0
    peak, idle = map(int, re.findall(r"(\d+) MiB", demo.output))
    assert 20 < idle <= peak
    assert f"Verified: {281 + EARLY_RECORDS - 6 - 5} app rows of the server equal the device's" in demo.output
    demo.assert_nothing_is_left()


@pytest.mark.needs_postgresql
@pytest.mark.parametrize(
    ("number", "after"),
    [
        pytest.param(signal.SIGINT, "Device: its tables", marks=pytest.mark.slow),
        (signal.SIGTERM, "Starting Redis and PostgreSQL"),
    ],
)
def test_stopped_demo_leaves_nothing_behind(demo: Demo, number: signal.Signals, after: str) -> None:
    demo.wait_for(after)
    assert len(demo.processes()) > 2

    demo.process.send_signal(number)
    demo.process.send_signal(number)  # an impatient user must not interrupt the tidying up

    assert demo.wait(30) == 128 + number, demo.output
    assert f"Stopped by {number.name}; every process has ended, every file is removed." in demo.output
    assert "Traceback" not in demo.output
    demo.assert_nothing_is_left()


@pytest.mark.slow
@pytest.mark.needs_postgresql
def test_demo_names_the_process_that_ended_and_shows_its_log(demo: Demo) -> None:
    demo.wait_for("Device: its tables")
    for process in demo.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # children go with the one that was killed
            if any(argument.startswith("--hostname=worker2") for argument in process.cmdline()):
                process.kill()

    assert demo.wait(60) == 1, demo.output
    _, log = demo.output.split("error: Worker 2 ended with status -9. The end of its log:\n")
    assert "worker2@" in log
    assert "Traceback" not in demo.output
    demo.assert_nothing_is_left()


def test_demo_refuses_fewer_than_100_records() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.demo", "--records", "99"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "--records must be at least 100" in done.stderr


# What it verifies with


@pytest.fixture
def device(transactional_db: None, migrated_device: Path, tmp_path: Path) -> Iterator[str]:
    """Alias of a second database, with the same school as the test database."""
    path = Path(shutil.copy(migrated_device, tmp_path))
    with device_attached(f"sqlite:///{path}") as alias:
        connections[alias].connect()  # Django 5.2 lets tests use a database of their own once it is connected
        school = School(factories.SCHOOL_ID, 100)
        for _ in create(school.early_records()):
            pass
        for _ in create(school.records()):
            pass
        for model in MODELS:
            model.objects.using(alias).bulk_create(model.objects.all())
        yield alias


def problems(device: str, *left_out: str) -> list[str]:
    found = Verification()
    compare_app_rows(device, set(left_out), found)
    return found.problems


def test_two_equal_databases_are_equal(device: str) -> None:
    found = Verification()
    compare_app_rows(device, set(), found)

    assert (found.compared, found.problems) == (100 + EARLY_RECORDS, [])


def test_row_that_is_missing_on_the_server_is_found(device: str) -> None:
    unused = School(factories.SCHOOL_ID, 100).lesson(5)
    Lesson.objects.filter(id=unused.id).delete()

    assert problems(device) == [f"Lesson {unused.id} is missing on the server"]


def test_row_that_only_the_server_has_is_found(device: str) -> None:
    unused = School(factories.SCHOOL_ID, 100).lesson(4)
    Lesson.objects.using(device).filter(id=unused.id).delete()

    assert problems(device) == [f"Lesson {unused.id} is on the server only"]


def test_column_that_differs_is_found(device: str) -> None:
    unit = School(factories.SCHOOL_ID, 100).unit(3)
    Unit.objects.filter(id=unit.id).update(update_dirty_bit_to=None, name="Another")

    assert problems(device) == [f"Unit {unit.id}: name is 'Another', on the device 'Class 3'"]


def test_broken_record_must_not_be_on_the_server(device: str) -> None:
    unit = School(factories.SCHOOL_ID, 100).unit(3)

    assert problems(device, unit.id) == [f"Unit {unit.id} is broken, and yet on the server"]


# Servers that the environment names


@pytest.mark.needs_postgresql
def test_given_postgresql_gets_a_database_that_is_gone_afterwards(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with empty_postgres() as url:
        assert urlsplit(url).path != urlsplit(database_url).path
        connection = psycopg2.connect(url)  # still open when it ends, as a killed worker's is
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert cursor.fetchone() == (0,)

    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(url)
    connection.close()


def test_another_kind_of_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///school.sqlite3")

    with pytest.raises(StepError, match="DATABASE_URL names no PostgreSQL server"):
        empty_postgres().__enter__()


def test_given_redis_has_to_be_empty_and_is_left_empty(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        with empty_redis() as url:
            assert url == redis_url
            client.set("ours", 1)
        assert client.dbsize() == 0

        client.set("theirs", 1)
        with pytest.raises(StepError, match="REDIS_URL names has keys"):
            empty_redis().__enter__()
        assert client.get("theirs") == b"1"
