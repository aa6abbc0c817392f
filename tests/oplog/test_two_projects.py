"""A project writes, in a process and a database of its own; another one follows, in a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from morango_celery.oplog.models import IngestPosition
from tests.library.logs import append, letters, library, save
from tests.library.models import Local, Shelf
from tests.support.processes import LoggedProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., LoggedProcess]


@pytest.fixture
def follow(database_url: str, log: Path, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts ``ingest_objects --follow`` on the log."""
    started: list[LoggedProcess] = []

    def start(*arguments: str) -> LoggedProcess:
        process = LoggedProcess(
            ["worker", "ingest_objects", str(log), "--follow", *arguments],
            tmp_path / f"follower{len(started)}.log",
            {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.oplog.project"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def write(log: Path, tmp_path: Path) -> Start:
    """Yield a function that starts a project which changes and records its own objects."""

    def start(steps: int, **environment: str) -> LoggedProcess:
        return LoggedProcess(
            ["tests.oplog.writer", str(steps), "7"],
            tmp_path / "writer.log",
            {
                "DATABASE_URL": f"sqlite:///{tmp_path}/writer.sqlite3",
                "DJANGO_SETTINGS_MODULE": "tests.oplog.project",
                "OPLOG_FILE": str(log),
                "LOG_LEVEL": "ERROR",
                **environment,
            },
        )

    return start


def read_to_the_end(log: Path) -> bool:
    """Return True if all files are read, by their sizes."""
    read = {position.inode: position.offset for position in IngestPosition.objects.all()}
    files = [file.stat() for file in log.parent.iterdir()]
    return bool(files) and all(read.get(str(file.st_ino)) == file.st_size for file in files)


@pytest.mark.timeout(600)
def test_reader_gets_the_writers_objects(log: Path, write: Start, follow: Start, exhaustive: bool) -> None:
    # Given a reader that waits for a log which isn't there yet
    reader = follow("--batch-size=20")

    # When a project writes, its log is rotated meanwhile, and the reader is killed in the middle
    writer = write(1500 if exhaustive else 70)
    reader.wait_until(IngestPosition.objects.exists, "reading", 60)
    reader.kill()
    reader = follow("--batch-size=20")
    assert writer.wait_until_ended(300) == 0, writer.log()

    # Then in the end both have the same, and the reader had no trouble
    reader.wait_until(lambda: read_to_the_end(log), "at the end", 60)
    assert len(list(log.parent.iterdir())) > 1
    theirs = json.loads(writer.log().splitlines()[-1])
    assert json.loads(json.dumps(library(), default=str)) == theirs
    assert not letters()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_reader_stops_on_a_signal(log: Path, follow: Start, number: signal.Signals) -> None:
    append(log, save("shelf", 1, name="a"))
    reader = follow()
    reader.wait_until(Shelf.objects.exists, "read")
    psutil.Process(reader.pid).send_signal(number)
    assert reader.wait_until_ended() == 0
    assert "1 lines: 1 applied" in reader.log()
    assert "Traceback" not in reader.log()


def test_reader_survives_any_change_of_the_file(log: Path, follow: Start) -> None:
    # Given a reader that follows
    append(log, save("shelf", 1, name="a"))
    reader = follow()

    def then(number: int, what: Callable[[], Any]) -> None:
        what()
        append(log, save("local", None, shelf=1, note=str(number)))
        seen = Local.objects.filter(note=str(number))
        reader.wait_until(seen.exists, f"read {number}")

    # When its file grows, is renamed, truncated, deleted, and its whole folder is replaced
    then(0, lambda: None)
    then(1, lambda: log.rename(f"{log}.1"))
    then(2, lambda: log.write_text(""))
    then(3, log.unlink)
    then(4, lambda: shutil.copytree(log.parent.rename(log.parent.with_name("away")), log.parent))
    then(5, lambda: None)

    # Then it has read on, each line once
    assert sorted(Local.objects.values_list("note", flat=True)) == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.needs_postgresql
def test_reader_survives_an_outage_of_its_database(log: Path, follow: Start) -> None:
    from django.db import connection

    append(log, save("shelf", 1, name="a"))
    reader = follow()
    reader.wait_until(Shelf.objects.exists, "read")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    append(log, save("shelf", 2, name="b"))
    reader.wait_until(lambda: Shelf.objects.count() == 2, "read on")
    assert "Nothing is lost" in reader.log()
