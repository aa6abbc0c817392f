"""A log of a million lines, or of large ones, is read and written in the memory of a small one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from morango_celery.db.driver import is_psycopg3
from morango_celery.oplog.models import IngestPosition, OutboxChange
from tests.library.logs import append, delete, ingested, letters, save
from tests.library.models import Book
from tests.support.processes import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

MEASURED = """
import sys
import django
from bench.processes import peak_rss_mb
django.setup()
from django.core.management import call_command
call_command(*sys.argv[1:])
print(peak_rss_mb())
"""


def write(path: Path, first: int, lines: int) -> None:
    """Write lines about books: of ten, two change an existing book, and one deletes a book."""
    with path.open("a") as file:
        for number in range(first, first + lines):
            if number % 10 == 9:
                file.write(delete("book", f"{number - 5:032x}") + "\n")
            else:
                key = number - 3 if number % 10 in (6, 7) else number
                file.write(
                    save("book", f"{key:032x}", title=f"Book {number}", about={"n": [number] * 5}) + "\n"
                )


def peak_mb(path: Path, database_url: str) -> float:
    """Return the peak of a process that reads on, in MB."""
    return peak_of_command_mb(database_url, "ingest_objects", str(path), "--source=memory")


def peak_of_command_mb(database_url: str, *command: str, **environment: str) -> float:
    settings = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.oplog.project"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        cwd=ROOT,
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return float(done.stdout.splitlines()[-1])


def read_in_flat_memory(log: Path, database_url: str, lines: int) -> None:
    write(log, 0, 5_000)
    small = peak_mb(log, database_url)
    write(log, 5_000, lines - 5_000)
    large = peak_mb(log, database_url)
    print(f"{small:.1f} MB for 5,000 lines, {large:.1f} MB for {lines:,}")
    assert large < small + 6
    assert large < (110 if is_psycopg3() else 105)
    assert IngestPosition.objects.get().lines == lines
    assert not letters()
    assert Book.objects.count() == lines * 6 // 10


def test_memory_does_not_grow_with_the_log(log: Path, database_url: str) -> None:
    read_in_flat_memory(log, database_url, 20_000)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_lines(log: Path, database_url: str) -> None:
    write(log, 0, 1_000)
    small = peak_mb(log, database_url)
    with log.open("a") as file:
        for number in range(100):
            key = f"{2_000 + number:032x}"
            file.write(save("book", key, title="large", about={"text": 1_000_000 * "x"}) + "\n")
    large = peak_mb(log, database_url)
    print(f"{small:.1f} MB for small lines, {large:.1f} MB for 100 of 1 MB each")
    assert large < small + 110
    assert Book.objects.filter(title="large").count() == 100


LARGE = 1_000_000 * "x"
LARGE_LINES = 60
FOR_LARGE_MB = 110
"""More than for small lines: a few batches of 8 MiB, in several forms."""


def large_book(number: int, **fields: Any) -> str:
    return save("book", f"{number:032x}", title="large", about={"text": LARGE}, **fields)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_letters_that_wait_for_an_object(log: Path, database_url: str) -> None:
    ingested(log, [large_book(number, shelf=1) for number in range(LARGE_LINES)], source="memory")
    append(log, save("shelf", 1, name="a"))
    large = peak_mb(log, database_url)
    print(f"{large:.1f} MB")
    assert large < idle_mb(database_url) + FOR_LARGE_MB
    assert Book.objects.count() == LARGE_LINES
    assert not letters()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_letters_that_wait_for_each_other(log: Path, database_url: str) -> None:
    ring = [
        large_book(number, successor=f"{(number + 1) % LARGE_LINES:032x}") for number in range(LARGE_LINES)
    ]
    ingested(log, ring[:-1], batch_lines=1, source="memory")
    append(log, ring[-1])
    large = peak_mb(log, database_url)
    print(f"{large:.1f} MB")
    assert large < idle_mb(database_url) + FOR_LARGE_MB
    assert Book.objects.count() == LARGE_LINES
    assert not letters()


def record_mb(log: Path, database_url: str, *arguments: str) -> float:
    """Return the peak of a process that writes recorded changes out, in MB."""
    environment = {"OPLOG_FILE": str(log), "OPLOG_ROTATE_BYTES": str(2**40)}
    return peak_of_command_mb(database_url, "record_objects", *arguments, **environment)


@cache
def idle_mb(database_url: str) -> float:
    """Return the peak of an idle process, in MB."""
    return peak_of_command_mb(database_url, "record_objects", OPLOG_FILE=os.devnull)


@pytest.mark.slow
def test_memory_does_not_grow_with_waiting_lines(log: Path, database_url: str) -> None:
    texts = [large_book(number) for number in range(LARGE_LINES)]
    OutboxChange.objects.bulk_create(map(OutboxChange.of, texts))
    large = record_mb(log, database_url)
    print(f"{large:.1f} MB")
    assert large < idle_mb(database_url) + FOR_LARGE_MB
    assert log.read_text().splitlines() == texts
    assert not OutboxChange.objects.exists()


def test_memory_does_not_grow_with_a_dead_writers_lines(log: Path, database_url: str) -> None:
    texts = [large_book(number) for number in range(LARGE_LINES)]
    OutboxChange.objects.bulk_create(map(OutboxChange.of, texts))
    append(log, *texts)
    large = record_mb(log, database_url)
    print(f"{large:.1f} MB")
    assert large < idle_mb(database_url) + FOR_LARGE_MB
    assert log.read_text().splitlines() == texts
    assert not OutboxChange.objects.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_existing_objects(log: Path, database_url: str) -> None:
    Book.objects.bulk_create(
        [Book(pk=uuid.UUID(int=n), title="large", about={"text": LARGE}) for n in range(LARGE_LINES)]
    )
    large = record_mb(log, database_url, "--existing")
    print(f"{large:.1f} MB")
    assert large < idle_mb(database_url) + FOR_LARGE_MB
    assert log.read_bytes().count(b"\n") == LARGE_LINES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_million_lines_are_read_in_flat_memory(log: Path, database_url: str) -> None:
    read_in_flat_memory(log, database_url, 1_000_000)
