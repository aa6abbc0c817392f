"""Any changes of recorded objects: ingesting the log elsewhere makes the same rows, in any batches."""

from __future__ import annotations

import random
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from morango_celery.deserialization.constraint_checks import strict_check
from morango_celery.oplog.models import (
    DeadLetter,
    IngestPosition,
    IngestSource,
    OutboxChange,
    RecorderFile,
)
from tests.library.logs import append, delete, empty_library, ingest, letters, library, positions, save
from tests.oplog.histories import History

pytestmark = pytest.mark.django_db(transaction=True)


def start_anew() -> None:
    for model in (DeadLetter, IngestPosition, IngestSource, OutboxChange, RecorderFile):
        model._base_manager.all().delete()
    empty_library()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_log_reproduces_its_source(recorded: Path, seed: int, exhaustive: bool) -> None:
    for number in range(seed * 1000, seed * 1000 + (30 if exhaustive else 1)):
        # Given a history, and the log of it
        start_anew()
        recorded.unlink(missing_ok=True)
        History(number).go_on(40)
        expected = library()

        # When another database gets the log, and nothing else
        empty_library()
        ingest(recorded, (1000, 7, 2, 1)[number % 4])

        # Then it has the same rows, and had no trouble that lasted
        assert library() == expected, number
        assert not letters(), number
        assert not OutboxChange.objects.exists()


def nonsense(seed: int) -> list[str]:
    """Lines about few objects, so that they get in each other's way; some can't be applied."""
    chance = random.Random(seed)
    book = [str(uuid.UUID(int=number)) for number in range(1, 4)]

    def one() -> str:
        shelf, other, tag = chance.randint(1, 4), chance.randint(1, 5), chance.choice("abc")
        relations: list[dict[str, Any]] = [{}, {"tags": [tag]}, {"friends": [chance.choice(book)]}]
        author = chance.choice([None, 1, 2, ["A"], ["B"], ["none"]])
        choices = [
            lambda: save("shelf", shelf, name=str(chance.random()), inside=other if other != shelf else None),
            lambda: save("shelf", shelf, name="x" * chance.choice([1, 1, 51])),
            lambda: save("tag", tag),
            lambda: save("author", chance.randint(1, 2), name=chance.choice("AB")),
            lambda: save("author", None, name=chance.choice("AB")),
            lambda: save("review", chance.randint(1, 3), book=chance.choice(book), author=author),
            lambda: save(
                "book",
                chance.choice(book),
                title=str(chance.random()),
                isbn=chance.choice([None, "1", "2"]),
                shelf=chance.choice([None, shelf]),
                author=author,
                **relations[chance.randint(0, 2)],
            ),
            lambda: save("place", shelf, town="a"),
            lambda: save("branch", shelf, books=chance.sample(book, 1)),
            lambda: save("careless", 1, shelf=shelf),
            lambda: delete("shelf", shelf),
            lambda: delete("author", chance.randint(1, 2)),
            lambda: delete("book", chance.choice(book)),
            lambda: delete("tag", tag),
            lambda: delete("branch", shelf),
            lambda: save("shelf", shelf, no_such_field=1),
            lambda: "rubbish",
        ]
        chosen: str = chance.choice(choices)()  # type: ignore[no-untyped-call]  # a lambda
        return chosen

    return [one() for _ in range(60)]


@pytest.mark.parametrize(("seed", "batch_lines"), [(0, 1), (1, 7), (2, 1000)])
def test_nonsense_leaves_no_line_without_an_end(log: Path, seed: int, batch_lines: int) -> None:
    lines = nonsense(seed)
    append(log, *lines)
    progress = ingest(log, batch_lines)
    assert positions() == [(log.name, log.stat().st_size, len(lines))]
    assert progress.lines == len(lines)
    assert len(letters()) <= progress.dead_letters < len(lines)
    with transaction.atomic():
        strict_check()()  # no reference points nowhere
