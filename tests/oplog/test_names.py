"""Models of a log with tables and columns of other names than their fields."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.library.logs import delete, empty_library, ingest, ingested, letters, library, save
from tests.library.models import Author, Book, Card, Stamp
from tests.oplog.histories import LONG

pytestmark = pytest.mark.django_db(transaction=True)

BOOK = str(uuid.UUID(int=1))


@pytest.fixture(params=[1, 1000], ids=lambda size: f"batches of {size}")
def batch(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


def test_each_value_comes_to_the_column_of_its_field(log: Path, batch: int) -> None:
    about = {"front": "Front", "back": "Back", LONG: "long", "order": 3, "tags": ["a"]}
    lines = [
        *(save("author", 1, name="Ada"), save("book", BOOK), save("tag", "a")),
        *(save("card", 1), save("card", 2, book=BOOK, written_by="Ada", **about), save("card", 3)),
        *(save("card", 1, front="new"), delete("card", 3), save("stamp", 2, text="loud")),
    ]
    ingested(log, lines, batch)
    assert not letters()
    found = Card.objects.order_by("pk").values(
        "pk", "front", "back", LONG, "order", "book_id", "written_by_id"
    )
    assert [tuple(row.values()) for row in found] == [
        (1, "new", None, None, 0, None, None),
        (2, "Front", "Back", "long", 3, uuid.UUID(BOOK), "Ada"),
    ]
    assert list(Card.tags.through.objects.values_list("card", "tag")) == [(2, "a")]
    assert Stamp.objects.get().text == "LOUD"


def test_new_rows_are_numbered_above_those_that_came(log: Path, batch: int) -> None:
    number = Card.objects.create().pk + 5
    ingested(log, [save("card", number)], batch)
    assert Card.objects.create().pk == number + 1


def test_line_waits_for_the_target_of_its_column(log: Path, batch: int) -> None:
    ingested(log, [save("card", 1, book=BOOK), save("card", 2, written_by="Ada")], batch)
    assert len(letters()) == 2
    assert not Card.objects.exists()
    ingested(log, [save("book", BOOK), save("author", 5, name="Ada")], batch)
    assert not letters()
    assert Card.objects.count() == 2


def test_objects_of_a_table_in_another_schema_are_recorded(recorded: Path) -> None:
    # Given objects that were there before they were recorded
    Author.objects.bulk_create([Author(pk=1, name="Ada")])
    Book.objects.bulk_create([Book(pk=BOOK)])
    Card.objects.bulk_create([Card(front="Front", written_by_id="Ada", book_id=BOOK, **{LONG: "long"})])
    before = library()

    # When all are recorded, their log makes them anew
    call_command("record_objects", "--existing")
    empty_library()
    ingest(recorded)
    assert library() == before
