"""Application of lines: the result in the database is the same for any batches."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from morango_celery.oplog.models import DeadLetter
from tests.library.logs import delete, ingest, ingested, letters, library, save
from tests.library.models import Annex, Author, Book, Branch, Egg, Hen, Local, Place, Review, Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)

BOOK, OTHER_BOOK = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@pytest.fixture(params=[1, 1000], ids=lambda size: f"batches of {size}")
def batch(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


def test_last_operation_on_an_object_wins(log: Path, batch: int) -> None:
    lines = [
        *(save("shelf", 1, name="old"), save("shelf", 1, name="new")),
        *(save("shelf", 2, name="a"), delete("shelf", 2)),
        *(save("shelf", 3, name="a"), delete("shelf", 3), save("shelf", 3, name="again")),
    ]
    ingested(log, lines, batch)
    assert list(Shelf.objects.order_by("pk").values_list("pk", "name")) == [(1, "new"), (3, "again")]
    assert not letters()


def test_deleting_a_missing_object_is_no_error(log: Path, batch: int) -> None:
    lines = [delete("shelf", 99), delete("annex", 99), delete("book", BOOK), delete("tag", "none")]
    assert ingested(log, lines, batch).dead_letters == 0


def test_deletion_spreads_as_djangos_does(log: Path, batch: int) -> None:
    ingested(log, [save("shelf", 1, name="a"), save("shelf", 2, name="b", inside=1)])
    Local.objects.create(shelf_id=2)
    ingested(log, [delete("shelf", 1)], batch)
    assert not Shelf.objects.exists()
    assert not Local.objects.exists()


def test_object_moved_before_a_deletion_is_kept(log: Path, batch: int) -> None:
    # Given a shelf with something on it that only this side knows
    ingested(log, [save("shelf", n, name="a", inside=1 if n == 3 else None) for n in (1, 2, 3)])
    Local.objects.create(shelf_id=3)

    # When it is moved, and then its old shelf is deleted
    ingested(log, [save("shelf", 3, name="a", inside=2), delete("shelf", 1)], batch)

    # Then the deletion doesn't reach it
    assert set(Shelf.objects.values_list("pk", flat=True)) == {2, 3}
    assert Local.objects.exists()


def test_object_deleted_and_saved_again_comes_back_alone(log: Path, batch: int) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    Local.objects.create(shelf_id=1)
    ingested(log, [delete("shelf", 1), save("shelf", 1, name="b")], batch)
    assert Shelf.objects.get().name == "b"
    assert not Local.objects.exists()


def test_line_that_refers_to_a_deleted_object_becomes_a_dead_letter(log: Path, batch: int) -> None:
    # Given lines about a shelf's books, behind the line that deletes the shelf
    ingested(log, [save("shelf", 1, name="a")])
    lines = [
        delete("shelf", 1),
        save("shelf", 2, name="b", inside=1),
        save("local", 5, shelf=1, note="n"),
        save("shelf", 3, name="c"),
    ]
    assert ingested(log, lines, batch).dead_letters == 2
    assert set(Shelf.objects.values_list("pk", flat=True)) == {3}

    # When the shelf comes back, so do they
    ingested(log, [save("shelf", 1, name="a")], batch)
    assert set(Shelf.objects.values_list("pk", flat=True)) == {1, 2, 3}
    assert Local.objects.get().note == "n"


def test_deletion_cascades_to_objects_of_the_same_batch(log: Path, batch: int) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    ingested(
        log, [save("shelf", 2, name="b", inside=1), save("local", 5, shelf=2), delete("shelf", 1)], batch
    )
    assert not Shelf.objects.exists()
    assert not Local.objects.exists()
    assert not letters()


def test_unique_value_may_go_from_one_object_to_another(log: Path, batch: int) -> None:
    book, other = save("book", BOOK, title="a", isbn="1"), save("book", OTHER_BOOK, title="b", isbn="2")
    ingested(log, [book, other])
    swapped = [
        save("book", BOOK, title="a", isbn="3"),
        save("book", OTHER_BOOK, title="b", isbn="1"),
        save("book", BOOK, title="a", isbn="2"),
    ]
    ingested(log, swapped, batch)
    assert dict(Book.objects.values_list("title", "isbn")) == {"a": "2", "b": "1"}
    assert not letters()


def test_child_may_come_before_its_parent(log: Path, batch: int) -> None:
    lines = [save("shelf", 1, name="child", inside=2), save("shelf", 2, name="parent")]
    progress = ingested(log, lines, batch)
    assert Shelf.objects.get(pk=1).inside_id == 2
    assert not letters()
    assert progress.lines == 2


def test_child_waits_for_its_parent_however_long(log: Path) -> None:
    ingested(log, [save("shelf", 1, name="child", inside=2)])
    assert [reason.partition(":")[0] for _, reason in letters()] == ["IntegrityError"]

    assert ingested(log, [save("shelf", 2, name="parent")]).dead_letters_applied == 1
    assert Shelf.objects.count() == 2
    assert DeadLetter.objects.get().state == DeadLetter.State.APPLIED


def test_child_that_was_deleted_meanwhile_does_not_come_back(log: Path, batch: int) -> None:
    ingested(log, [save("shelf", 1, name="child", inside=2), delete("shelf", 1)], 1)
    ingested(log, [save("shelf", 2, name="parent")], batch)
    assert Shelf.objects.get().pk == 2
    assert DeadLetter.objects.get().state == DeadLetter.State.SUPERSEDED


def test_models_may_refer_to_each_other(log: Path, batch: int) -> None:
    lines = [save("hen", 1, egg=1), save("egg", 1, hen=1)]
    ingested(log, lines, batch)
    assert (Hen.objects.get().egg_id, Egg.objects.get().hen_id) == (1, 1)
    assert not letters()


def test_many_to_many_values_are_those_of_the_last_line_that_has_any(log: Path, batch: int) -> None:
    lines = [
        *(save("tag", slug) for slug in "abc"),
        save("book", BOOK, title="x", tags=["a", "b"]),
        save("book", OTHER_BOOK, title="y", tags=["a"], friends=[BOOK]),
        save("book", BOOK, title="x", tags=["b", "c"], friends=[OTHER_BOOK]),
        save("book", BOOK, title="z"),
        save("branch", 5, books=[BOOK]),
        save("place", 5, town="A"),
    ]
    ingested(log, lines, batch)
    assert not letters()
    book = Book.objects.get(pk=BOOK)
    assert (book.title, sorted(book.tags.values_list("pk", flat=True))) == ("z", ["b", "c"])
    assert str(Book.objects.get(friends__pk=BOOK).pk) == OTHER_BOOK
    ingested(log, [save("book", BOOK, title="z", tags=[]), delete("tag", "a")], batch)
    assert not Tag.objects.filter(book__isnull=False).exists()


def test_missing_many_to_many_value_makes_a_dead_letter(log: Path, batch: int) -> None:
    lines = [save("book", BOOK, title="x", tags=["none"]), save("shelf", 1, name="a")]
    ingested(log, lines, batch)
    assert [offset for offset, _ in letters()] == [0]
    assert not Book.objects.exists()
    assert Shelf.objects.exists()


def test_many_to_many_value_that_was_deleted_before_makes_a_dead_letter(log: Path, batch: int) -> None:
    ingested(log, [save("tag", "gone")])
    ingested(log, [delete("tag", "gone"), save("book", BOOK, title="x", tags=["gone"])], batch)
    assert len(letters()) == 1
    assert not Book.objects.exists()


def test_objects_span_the_tables_of_their_parents(log: Path, batch: int) -> None:
    lines = [
        *(save("place", 1, town="A"), save("branch", 1, opened="2020-02-29"), save("annex", 1, size=3)),
        *(save("place", 2, town="B"), save("branch", 2), delete("branch", 2)),
        *(save("annex", 3, size=4), save("branch", 3), save("place", 3, town="C")),
    ]
    ingested(log, lines, batch)
    assert [annex.town for annex in Annex.objects.order_by("pk")] == ["A", "C"]
    assert set(Branch.objects.values_list("pk", flat=True)) == {1, 3}
    assert set(Place.objects.values_list("pk", flat=True)) == {1, 3}
    assert not letters()


def test_natural_keys_name_objects_and_their_references(log: Path, batch: int) -> None:
    # Given objects known here by other keys
    ada = Author.objects.create(name="Ada", born="1815-12-10")
    lines = [
        save("author", None, name="Ada", born="1815-12-11"),
        save("author", None, name="Bob", born=None),
        save("book", BOOK, title="x", author=["Bob"]),
        save("author", None, name="Bob", born="1999-01-01"),
        save("review", 1, book=BOOK, author=["Ada"]),
    ]
    ingested(log, lines, batch)
    assert not letters()
    assert dict(Author.objects.values_list("name", "born__year")) == {"Ada": 1815, "Bob": 1999}
    assert Book.objects.get().author == Author.objects.get(name="Bob")
    assert Review.objects.get().author == ada


def test_natural_key_may_be_that_of_an_object_yet_to_come(log: Path, batch: int) -> None:
    lines = [save("book", BOOK, title="x", author=["Bob"]), save("author", 7, name="Bob")]
    ingested(log, lines, batch)
    assert Book.objects.get().author_id == 7
    assert not letters()


def test_natural_key_means_its_object_of_that_time(log: Path, batch: int) -> None:
    lines = [
        *(save("author", 1, name="Bob"), save("book", BOOK, title="x", author=["Bob"])),
        *(save("author", 1, name="Robert"), save("author", 2, name="Bob")),
        save("book", OTHER_BOOK, title="y", author=["Bob"]),
    ]
    ingested(log, lines, batch)
    assert dict(Book.objects.values_list("title", "author_id")) == {"x": 1, "y": 2}


def test_object_without_a_key_is_created_once_by_each_line(log: Path, batch: int) -> None:
    lines = [save("shelf", 1, name="a"), *(save("local", None, shelf=1, note=str(n)) for n in range(5))]
    ingested(log, lines, batch)
    ingest(log)
    assert sorted(Local.objects.values_list("note", flat=True)) == ["0", "1", "2", "3", "4"]


def test_columns_have_the_values_of_a_raw_save(log: Path, batch: int) -> None:
    fields = {
        "title": "ä\u2028\\ ' %s",
        "pages": "12",
        "price": "12.30",
        "bought_at": "2026-01-02T03:04:05.000006+02:00",
        "changed_at": "2020-01-01T00:00:00Z",
        "lending": "P1DT00H00M01.500000S",
        "cover": "aGk=",
        "about": {"a": [1, None, "x"]},
        "seen_from": "10.0.0.1",
    }
    ingested(log, [save("book", BOOK, **fields), save("book", OTHER_BOOK, title="few", pages=-1)], batch)
    assert [reason.partition(":")[0] for _, reason in letters()] == ["IntegrityError"]
    (found,) = library()["library.Book"]
    assert found["fields"]["changed_at"].year == 2020  # auto_now is for those who save here
    assert found["fields"]["bought_at"].microsecond == 6
    book = Book.objects.get()
    assert (book.title, book.pages, str(book.price)) == (fields["title"], 12, "12.30")
    assert (bytes(book.cover or b""), book.about, book.seen_from) == (b"hi", fields["about"], "10.0.0.1")


@pytest.mark.needs_postgresql
def test_new_rows_are_numbered_above_those_that_came(log: Path) -> None:
    ingested(log, [save("shelf", 500, name="a"), save("shelf", 20, name="b")])
    here = Shelf.objects.create(name="here")
    assert here.pk == 501
    here.delete()
    ingested(log, [save("shelf", 400, name="c")])  # no number is given twice
    assert Shelf.objects.create(name="here").pk == 502


def test_model_that_is_saved_each_sends_its_raw_signals(log: Path, settings: Any) -> None:
    from django.db.models.signals import post_save

    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["library.Shelf"]}
    heard = []

    def hear(instance: Shelf, raw: bool, **kwargs: object) -> None:
        heard.append((instance.pk, raw))

    post_save.connect(hear, sender=Shelf)
    try:
        ingested(log, [save("shelf", 1, name="a", inside=2), save("shelf", 2, name="b")], 1000)
    finally:
        post_save.disconnect(hear, sender=Shelf)
    assert set(heard) == {(1, True), (2, True)}


def test_constraints_that_are_not_deferred_find_parents_first(log: Path) -> None:
    # Given a database that checks each row at once
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT conname FROM pg_constraint"
                " WHERE contype = 'f' AND conrelid = 'library_shelf'::regclass"
            )
            (name,) = cursor.fetchone()
            cursor.execute(f"ALTER TABLE library_shelf ALTER CONSTRAINT {name} NOT DEFERRABLE")
        else:
            cursor.execute(
                "CREATE TRIGGER at_once BEFORE INSERT ON library_shelf WHEN NEW.inside_id IS NOT NULL"
                " AND NOT EXISTS (SELECT 1 FROM library_shelf WHERE id = NEW.inside_id)"
                " BEGIN SELECT raise(ABORT, 'too early'); END"
            )
    try:
        from django.test.utils import CaptureQueriesContext

        lines = [save("shelf", n, name="a", inside=n + 1 if n < 30 else None) for n in range(1, 31)]
        with CaptureQueriesContext(connection) as queries:
            ingested(log, lines)
    finally:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(
                    f"ALTER TABLE library_shelf ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED"
                )
            else:
                cursor.execute("DROP TRIGGER at_once")
    assert Shelf.objects.count() == 30
    assert len(queries) < 30
