"""Ingestion and recorder are killed before their statements and COMMITs; nothing is lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morango_celery.oplog.models import DeadLetter, IngestPosition, IngestSource, OutboxChange
from tests.library.logs import append, delete, empty_library, ingest, letters, library, positions, save
from tests.library.models import Local, Shelf
from tests.support.processes import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

BOOKS = [f"{number:032x}" for number in range(1, 9)]
Die = Callable[..., int]


@pytest.fixture
def die(database_url: str, exhaustive: bool) -> Die:
    """Return a function that runs `tests.oplog.dying` and returns the number of kills."""

    def run(what: str, argument: str, **environment: str) -> int:
        settings = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.oplog.project"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.oplog.dying", what, argument, "1" if exhaustive else "9"],
            cwd=ROOT,
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=570,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return int(done.stdout.splitlines()[-1])

    return run


def with_everything() -> list[str]:
    """Lines that take every way there is; those without a key leave a row more each time they are applied."""
    return [
        *(save("shelf", 1, name="a"), save("local", None, shelf=1, note="once"), save("tag", "t")),
        save("book", BOOKS[0], title="a", isbn="1", tags=["t"], shelf=1),
        save("review", 1, book=BOOKS[0], author=["Ada"]),
        save("author", None, name="Ada"),
        *("rubbish", save("shelf", 2, name="b", inside=3)),
        save("local", None, shelf=1, note="twice"),
        *(save("book", BOOKS[1], title="b", isbn="1"), save("shelf", 3, name="c"), delete("tag", "t")),
        save("local", None, shelf=1, note="last"),
        *(save("hen", 1, egg=1), save("egg", 1, hen=1), delete("shelf", 3), save("place", 1, town="A")),
    ]


def test_ingestion_dies_at_every_point(log: Path, die: Die, exhaustive: bool) -> None:
    # Given the result of an undisturbed ingestion
    append(log, *with_everything())
    ingest(log, 12)
    expected, dead, read = without_numbers(library()), letters(), positions()
    for model in (DeadLetter, IngestPosition, IngestSource):
        model._base_manager.all().delete()
    empty_library()

    # When it is ingested by processes that die one after the other
    deaths = die("ingest", str(log))

    # Then it is as if none had
    assert deaths > (100 if exhaustive else 11)
    assert without_numbers(library()) == expected
    assert (letters(), positions()) == (dead, read)
    assert sorted(Local.objects.values_list("note", flat=True)) == ["last", "once", "twice"]


def without_numbers(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Without those that the database gives, which go up with each attempt."""
    authors = {row["pk"]: row["fields"]["name"] for row in rows["library.Author"]}
    for model, found in rows.items():
        for row in found:
            if model in ("library.Author", "library.Local"):
                row["pk"] = None
            if "author" in row["fields"]:
                row["fields"]["author"] = authors.get(row["fields"]["author"])
    return {model: sorted(map(str, found)) for model, found in rows.items()}


def test_recorder_dies_at_every_point(log: Path, die: Die, exhaustive: bool) -> None:
    # When a project's processes die one after the other while they change objects
    deaths = die("record", "2", OPLOG_FILE=str(log), OPLOG_ROTATE_BYTES="1500")
    assert deaths > (50 if exhaustive else 5)
    assert Shelf.objects.count() > 2

    # Then the log tells of every change that was committed, once
    expected = library()
    assert not OutboxChange.objects.exists()
    files = list(log.parent.iterdir())
    assert len(files) > 1
    texts = [line for file in files for line in file.read_text().splitlines()]
    assert len(texts) == len(set(texts))
    empty_library()
    assert ingest(log).dead_letters == 0
    assert library() == expected
