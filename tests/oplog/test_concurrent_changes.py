"""Two transactions on one object, in every order of their steps: the log gives the final state."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, transaction
from django.db.models import F

from morango_celery.oplog import recorder
from morango_celery.oplog.lines import Operation
from morango_celery.oplog.logfile import write_out
from morango_celery.oplog.models import (
    DeadLetter,
    IngestPosition,
    IngestSource,
    OutboxChange,
    RecorderFile,
)
from tests.library import models as typed
from tests.library.logs import empty_library, ingest, letters, library
from tests.oplog.interleaving import Stops, before_every_statement, before_reading_or_deleting, interleavings

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

models: Any = typed
Annex, Basket, Book, Branch = models.Annex, models.Basket, models.Book, models.Branch
Local, Place, Shelf, Tag = models.Local, models.Place, models.Shelf, models.Tag

BOOK, OTHER_BOOK = f"{1:032x}", f"{2:032x}"
A, B, C = "a", "b", "c"


def there() -> None:
    """Objects that were there before, which nobody records."""
    Tag.objects.bulk_create([Tag(slug=A), Tag(slug=B), Tag(slug=C)])
    Shelf.objects.bulk_create([Shelf(pk=1, name="a")])
    Local.objects.bulk_create([Local(pk=1, shelf_id=1), Local(pk=2, shelf_id=1)])
    book, _ = Book.objects.bulk_create([Book(pk=BOOK, title="old"), Book(pk=OTHER_BOOK, title="old")])
    Book.objects.update(changed_at=None)  # the same each time
    for model in (Place, Branch, Annex):
        values: dict[str, Any] = {"town": "old"} if model is Place else {f"{model._meta.pk.name}_id": 1}
        model(pk=1, **values).save_base(raw=True)
    Basket.objects.bulk_create([Basket(pk=1)])
    book.tags.through.objects.bulk_create([book.tags.through(book_id=BOOK, tag_id=A)])
    Basket.tags.through.objects.bulk_create([Basket.tags.through(basket_id=1, tag_id=A)])
    Basket.locals.through.objects.bulk_create([Basket.locals.through(basket_id=1, local_id=1)])
    friends = Book.friends.through
    friends.objects.bulk_create(
        [
            friends(from_book_id=BOOK, to_book_id=OTHER_BOOK),
            friends(from_book_id=OTHER_BOOK, to_book_id=BOOK),
        ]
    )


def book() -> Any:
    return Book.objects.get(pk=BOOK)


def saved(found: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(found, name, value)
    found.save()


def saved_in_part(found: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(found, name, value)
    found.save(update_fields=list(values))


def updated() -> None:
    found = Book.objects.filter(pk=BOOK)
    found.update(title="updated")
    recorder.record(Operation.SAVE, found)


def related_by_hand() -> None:
    through = Book.tags.through
    through.objects.bulk_create([through(book_id=BOOK, tag_id=C)])
    recorder.record(Operation.SAVE, [book()])


CHANGES: dict[str, Callable[[], Any]] = {
    "add": lambda: book().tags.add(B),
    "add another": lambda: book().tags.add(C),
    "remove": lambda: book().tags.remove(A),
    "set": lambda: book().tags.set([B, C]),
    "clear": lambda: book().tags.clear(),
    "add from the other side": lambda: Tag.objects.get(pk=B).book_set.add(BOOK),
    "remove from the other side": lambda: Tag.objects.get(pk=A).book_set.remove(book()),
    "set from the other side": lambda: Tag.objects.get(pk=A).book_set.set([OTHER_BOOK]),
    "clear from the other side": lambda: Tag.objects.get(pk=A).book_set.clear(),
    "save": lambda: saved(book(), title="new"),
    "save in part": lambda: saved_in_part(book(), title="part"),
    "save an expression": lambda: saved(book(), pages=F("pages") + 1),
    "save without a tag": lambda: saved(Book.objects.get(pk=OTHER_BOOK), title="new"),
    "update and record": updated,
    "relate and record": related_by_hand,
    "delete a tag": lambda: Tag.objects.get(pk=A).delete(),
    "delete tags": lambda: Tag.objects.filter(pk__in=[A, B]).delete(),
    "delete": lambda: book().delete(),
    "befriend": lambda: book().friends.add(OTHER_BOOK),
    "part with": lambda: book().friends.remove(OTHER_BOOK),
    "part with all": lambda: Book.objects.get(pk=OTHER_BOOK).friends.clear(),
}

PAIRS = [
    ("add", "add another"),
    ("add", "save"),
    ("remove", "save"),
    ("clear from the other side", "save"),
    ("delete a tag", "save"),
    ("relate and record", "save"),
    ("part with", "save without a tag"),
]

OTHERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "an object's tables": (
        lambda: Annex.objects.get(pk=1).books.add(BOOK),
        lambda: saved(Place.objects.get(pk=1), town="new"),
    ),
    "an object's tables, saved in part": (
        lambda: saved_in_part(Annex.objects.get(pk=1), size=5),
        lambda: saved(Place.objects.get(pk=1), town="new"),
    ),
    "an object's tables, from below and above": (
        lambda: Branch.objects.get(pk=1).books.add(BOOK),
        lambda: saved(Annex.objects.get(pk=1), town="new", size=5),
    ),
    "nothing to update": (
        lambda: Basket.objects.get(pk=1).tags.add(B),
        lambda: Basket.objects.get(pk=1).save(),
    ),
    "nothing to update, from the other side": (
        lambda: Tag.objects.get(pk=A).basket_set.clear(),
        lambda: Basket.objects.get(pk=1).save(),
    ),
    "what isn't recorded is deleted": (
        lambda: Local.objects.get(pk=1).delete(),
        lambda: Basket.objects.get(pk=1).locals.add(2),
    ),
    "what isn't recorded is deleted with others": (
        lambda: Local.objects.all().delete(),
        lambda: Basket.objects.get(pk=1).save(),
    ),
}


REFUSALS = (DatabaseError, ObjectDoesNotExist, ValueError)
"""Errors of a change that came too late. The last is Django's for an expression without its row."""


def start_anew() -> None:
    for model in (DeadLetter, IngestPosition, IngestSource, OutboxChange, RecorderFile):
        model._base_manager.all().delete()
    with transaction.atomic():
        empty_library()
        there()


def say_what_is_left(
    log: Path, works: tuple[Callable[[], Any], Callable[[], Any]], stops: Stops, atomic: bool = True
) -> int:
    """Carry out two changes in every order of their steps, and ingest the log of each order.

    :returns: the number of orders
    """
    orders = 0
    for order, sessions in interleavings(works, stops, start_anew, atomic):
        orders += 1
        errors = [session.error for session in sessions if session.error is not None]
        assert all(isinstance(error, REFUSALS) for error in errors), (order, errors)
        assert len(errors) < 2, (order, errors)
        left = with_whole_friendships(library())
        texts = list(OutboxChange.objects.order_by("pk").values_list("text", flat=True))
        write_out()
        start_anew()
        ingest(log)
        assert not letters(), (order, errors, texts)
        assert not differences(left, library()), (order, errors, texts)
        log.unlink(missing_ok=True)
    return orders


def with_whole_friendships(left: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the halves of symmetrical pairs.

    Django's `add` inserts the mirrored row without looking whether its first look still holds.
    """
    books = {row["pk"]: row["fields"] for row in left["library.Book"]}
    friends = {pk: set(fields["friends"]) for pk, fields in books.items()}
    for pk, fields in books.items():
        fields["friends"] = [other for other in fields["friends"] if pk in friends.get(other, ())]
    return left


def differences(left: dict[str, list[Any]], ingested: dict[str, list[Any]]) -> list[Any]:
    """Return the rows that one database has and the other hasn't."""
    return [
        (name, row)
        for label in left
        if label != "library.Local"  # of which nothing is recorded
        for name, of, other in (("left", left, ingested), ("ingested", ingested, left))
        for row in of[label]
        if row not in other[label]
    ]


@pytest.fixture
def changes(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the log of two transactions; the test chooses the writer."""
    monkeypatch.setattr(recorder, "write_out", lambda: 0)
    return recorded


@pytest.mark.parametrize("pair", PAIRS[:3], ids=" and ".join)  # all of them are among the slow ones below
def test_log_gives_the_result_of_two_transactions(changes: Path, pair: tuple[str, str]) -> None:
    one, other = pair
    orders = say_what_is_left(changes, (CHANGES[one], CHANGES[other]), before_reading_or_deleting)
    assert orders >= 6


@pytest.mark.slow
@pytest.mark.parametrize("pair", OTHERS.values(), ids=OTHERS)
def test_log_gives_the_result_of_each_pair_of_transactions(
    changes: Path, pair: tuple[Callable[[], Any], Callable[[], Any]]
) -> None:
    assert say_what_is_left(changes, pair, before_reading_or_deleting) >= 6


@pytest.mark.parametrize("other", ["add", pytest.param("save in part", marks=pytest.mark.slow)])
def test_log_gives_the_result_of_changes_without_a_transaction(changes: Path, other: str) -> None:
    works = CHANGES["save"], CHANGES[other]
    assert say_what_is_left(changes, works, before_reading_or_deleting, atomic=False) >= 2


def test_object_gone_before_it_is_recorded_was_recorded_as_deleted(changes: Path) -> None:
    works = CHANGES["save"], CHANGES["delete"]
    assert say_what_is_left(changes, works, before_reading_or_deleting, atomic=False) >= 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", list(combinations_with_replacement(CHANGES, 2)), ids=" and ".join)
def test_log_gives_the_result_of_any_two_transactions(changes: Path, pair: tuple[str, str]) -> None:
    one, other = pair
    say_what_is_left(changes, (CHANGES[one], CHANGES[other]), before_reading_or_deleting)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS[:3], ids=" and ".join)
def test_log_gives_the_result_of_two_transactions_statement_by_statement(
    changes: Path, pair: tuple[str, str]
) -> None:
    one, other = pair
    say_what_is_left(changes, (CHANGES[one], CHANGES[other]), before_every_statement)
