"""A log of a million lines is read in the memory of a small one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morango_celery.oplog.models import IngestPosition
from tests.oplog.library.models import Book
from tests.oplog.logs import delete, letters, save
from tests.processes import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

MEASURED = """
import sys
import django
from bench.processes import peak_rss_mb
django.setup()
from django.core.management import call_command
call_command("ingest_objects", sys.argv[1], "--source=memory")
print(peak_rss_mb())
"""


def write(path: Path, first: int, lines: int) -> None:
    """Of ten lines about books, two change what is there, and one deletes."""
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
    """Of a process that reads on."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.oplog.project"},
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
    assert large < 100
    assert IngestPosition.objects.get().lines == lines
    assert not letters()
    assert Book.objects.count() == lines * 6 // 10


def test_memory_does_not_grow_with_the_log(log: Path, database_url: str) -> None:
    read_in_flat_memory(log, database_url, 20_000)


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


@pytest.mark.at_length
@pytest.mark.timeout(900)
def test_a_million_lines_are_read_in_flat_memory(log: Path, database_url: str) -> None:
    read_in_flat_memory(log, database_url, 1_000_000)
