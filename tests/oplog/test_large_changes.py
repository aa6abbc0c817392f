"""Lines of very many objects: they are written in bulk, even if one object is faulty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from morango_celery.oplog import dead_letters, meta, relations, unit_of_work
from morango_celery.oplog.lines import Operation, format_line
from morango_celery.oplog.models import DeadLetter, DeadLetterObject
from morango_celery.oplog.retry import retry_dead_letters
from tests.library.logs import append, ingest, ingested, letters, library, save
from tests.library.models import Author, Book, Egg, Hen, Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)

Objects = list[dict[str, Any]]


def shelves(keys: range, **fields: Any) -> Objects:
    return [{"model": "library.shelf", "pk": key, "fields": {"name": "a", **fields}} for key in keys]


def change(objects: Objects, operation: Operation = Operation.SAVE) -> str:
    return format_line(1_000_000_000, operation, json.dumps(objects))


def statements(log: Path, *lines: str) -> int:
    """Return the number of statements of an ingestion, without savepoints."""
    append(log, *lines)
    with CaptureQueriesContext(connection) as queries:
        ingest(log)
    return sum("SAVEPOINT" not in query["sql"] for query in queries)


@pytest.mark.parametrize("operation", Operation)
def test_number_of_statements_does_not_grow_with_the_objects_of_a_line(
    log: Path, operation: Operation
) -> None:
    keys = range(1, 2001)
    few = statements(log, change(shelves(range(1, 201)), operation))
    many = statements(log, change(shelves(keys), operation))
    # Django deletes a hundred at a time
    assert many <= few + (0 if operation is Operation.SAVE else len(keys) // 100)
    assert Shelf.objects.count() == (2000 if operation is Operation.SAVE else 0)
    assert not letters()


def test_one_bad_object_among_many_costs_a_few_statements_and_is_named(log: Path) -> None:
    # Given the reason of a line about the bad object alone
    bad = {"model": "library.shelf", "pk": 1501, "fields": {"name": None}}
    ingested(log, [change([bad])])
    ((_, reason),) = letters()
    assert reason

    # When it stands among others
    objects = shelves(range(1, 2001))
    objects[1500] = bad
    taken = statements(log, change(objects), save("tag", "behind"))

    # Then the line is kept for the same reason, as a whole, and it took no statement per object
    assert [found for _, found in letters()] == [reason, reason]
    assert not Shelf.objects.exists()
    assert Tag.objects.exists()
    assert taken < 400


def among_shelves(*objects: dict[str, Any], apart: int = 150) -> Objects:
    """Objects in their order, with so many shelves between each two that these are in other parts."""
    found: Objects = []
    for number, one in enumerate(objects):
        first = 1000 + number * apart
        found += [one, *shelves(range(first, first + apart))]
    return found


def book(key: int, **fields: Any) -> dict[str, Any]:
    return {"model": "library.book", "pk": f"{key:032x}", "fields": {"title": "a", **fields}}


def test_values_that_change_hands_within_a_line_end_where_the_line_says(log: Path) -> None:
    ingested(log, [change([book(1, isbn="one"), book(2, isbn="two")])])
    swapped = [book(1, isbn=None), book(2, isbn="one"), book(1, isbn="two")]
    ingested(log, [change(among_shelves(*swapped))])
    assert not letters()
    assert list(Book.objects.order_by("pk").values_list("isbn", flat=True)) == ["two", "one"]
    assert Shelf.objects.count() == 450


def test_natural_key_may_name_a_later_object_of_a_halved_line(log: Path) -> None:
    ingested(log, [change([book(1, isbn="one"), book(2, isbn="two")])])
    author = {"model": "library.author", "pk": 5, "fields": {"name": "Late", "born": "1990-01-01"}}
    swapped = [book(1, isbn=None), book(2, isbn="one"), book(1, isbn="two", author=["Late"])]
    ingested(log, [change(among_shelves(*swapped, author))])
    assert letters() == []
    assert Book.objects.get(isbn="two").author == Author.objects.get()


def test_name_that_is_gone_by_the_end_of_a_line_is_not_looked_for(log: Path) -> None:
    """A part of a halved line names an author who never comes; a later part has no such name."""
    ingested(log, [change([book(1, isbn="one"), book(2, isbn="two")])])
    swapped = [book(1, isbn=None, author=["Nobody"]), book(2, isbn="one"), book(1, isbn="two", author=None)]
    ingested(log, [change(among_shelves(*swapped))])
    assert letters() == []
    assert Book.objects.get(isbn="two").author is None


def test_cycle_of_references_may_span_a_line(log: Path) -> None:
    ingested(log, [change([book(1, isbn="one"), book(2, isbn="two")])])
    swapped = [book(1, isbn=None), book(2, isbn="one"), book(1, isbn="two")]
    hen = {"model": "library.hen", "pk": 1, "fields": {"egg": 1}}
    egg = {"model": "library.egg", "pk": 1, "fields": {"hen": 1}}
    ingested(log, [change(among_shelves(hen, *swapped, egg))])
    assert letters() == []
    assert (Hen.objects.get().egg_id, Egg.objects.get().hen_id) == (1, 1)


def test_missing_targets_of_many_objects_are_found_in_a_few_statements(log: Path) -> None:
    few = statements(log, change([book(key, shelf=5000 + key, tags=[f"t{key}"]) for key in range(1, 151)]))
    many = statements(log, change([book(key, shelf=5000 + key, tags=[f"t{key}"]) for key in range(1, 2001)]))
    assert many <= few + 10
    assert [letter.missing_object for letter in DeadLetter.objects.order_by("pk")] == [
        "library.shelf:5001"
    ] * 2


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit statements to three keys."""
    assert meta.MAX_KEYS > 1000
    for module in (dead_letters, unit_of_work, relations):
        monkeypatch.setattr(module, "MAX_KEYS", 3)


def test_letters_about_more_objects_than_a_statement_names_are_superseded_and_applied(
    log: Path, few_keys: None
) -> None:
    # Given a letter about twenty objects, and twenty about one each, that wait
    ingested(log, [change(shelves(range(1, 21), inside=99))])
    ingested(log, [save("shelf", key, name="a", inside=99) for key in range(21, 41)])
    assert DeadLetterObject.objects.count() == 40

    # When half of the objects come in another line, and then the missing object
    ingested(log, [change(shelves(range(11, 31), inside=None))])
    assert DeadLetterObject.objects.count() == 20
    ingested(log, [change(shelves(range(99, 110)))])

    # Then the others are applied
    assert not letters()
    assert set(Shelf.objects.filter(inside=99).values_list("pk", flat=True)) == {
        *range(1, 11),
        *range(31, 41),
    }
    states = list(DeadLetter.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["applied", *["superseded"] * 10, *["applied"] * 10]
    assert retry_dead_letters().applied == 0


def test_letters_that_need_each_other_and_more_than_a_statement_names_are_applied(
    log: Path, few_keys: None
) -> None:
    ring = [save("shelf", key, name="a", inside=key % 12 + 1) for key in range(1, 13)]
    for line in ring:
        ingested(log, [line])
    assert not letters()
    assert Shelf.objects.count() == 12


def test_many_to_many_values_are_as_a_line_has_them_however_many(log: Path, few_keys: None) -> None:
    tags = [{"model": "library.tag", "pk": f"t{number}", "fields": {}} for number in range(20)]
    ingested(log, [change([*tags, book(1, tags=[tag["pk"] for tag in tags])]), save("tag", "more")])
    ingested(log, [change([book(1, tags=["t1", "t7", "more"])]), save("tag", "again")])
    assert set(Book.objects.get().tags.values_list("pk", flat=True)) == {"t1", "t7", "more"}
    lacking = [book(2, tags=["t1", "t2", "t3", "none", "t4"]), book(3, tags=["nothing"])]
    ingested(log, [change(lacking)])
    assert DeadLetter.objects.get().missing_object == "library.tag:none"


def test_order_of_changes_holds_however_often_rows_are_written(log: Path, few_keys: None) -> None:
    objects = [*shelves(range(1, 8)), *shelves(range(1, 3), name="b"), *shelves(range(5, 12), inside=1)]
    ingested(
        log, [change(objects), change(shelves(range(2, 4)), Operation.DELETE), save("shelf", 3, name="c")]
    )
    found = {row["pk"]: row["fields"]["name"] for row in library()["library.Shelf"]}
    assert found == {1: "b", 3: "c", **dict.fromkeys(range(4, 12), "a")}
