"""Whatever is done to recorded objects: ingesting the log elsewhere makes the same rows, in any batches."""

from __future__ import annotations

import random
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.models import ProtectedError

from morango_celery.deserialize.sql import strict_check
from morango_celery.oplog.models import (
    DeadLetter,
    IngestPosition,
    IngestSource,
    RecordedChange,
    RecorderFile,
)
from tests.oplog.library.models import Annex, Author, Book, Branch, Egg, Hen, OldBook, Review, Shelf, Tag
from tests.oplog.logs import append, delete, empty_library, ingest, letters, library, positions, save

pytestmark = pytest.mark.django_db(transaction=True)


class History:
    """Does things to objects of the library, at random, some of which the database refuses."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.deeds = [self.shelve, self.write, self.publish, self.relate, self.breed, self.found, self.undo]

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            try:
                with transaction.atomic():
                    for _ in range(self.random.randint(1, 3)):
                        self.random.choice(self.deeds)()
                    if self.random.random() < 0.1:
                        transaction.set_rollback(True)
            except (DatabaseError, ProtectedError):
                pass  # the source refuses it, so it never happened

    def any_of(self, model: Any) -> Any:
        found = list(model.objects.order_by("pk"))
        return self.random.choice(found) if found and self.random.random() < 0.8 else None

    def shelve(self) -> None:
        shelf = self.any_of(Shelf) or Shelf()
        shelf.name = str(self.random.random())
        shelf.inside = self.any_of(Shelf)
        shelf.save()

    def write(self) -> None:
        author = self.any_of(Author) or Author()
        author.name = f"author {self.random.randint(1, 5)}"
        author.save()

    def publish(self) -> None:
        book = self.any_of(self.random.choice([Book, OldBook])) or Book(
            id=uuid.UUID(int=self.random.getrandbits(128))
        )
        book.title = str(self.random.random())
        book.isbn = str(self.random.randint(1, 4)) if self.random.random() < 0.5 else None
        book.shelf, book.author, book.successor = self.any_of(Shelf), self.any_of(Author), self.any_of(Book)
        book.save()
        if author := self.any_of(Author):
            Review.objects.create(book=book, author=author)

    def relate(self) -> None:
        tag, _ = Tag.objects.get_or_create(slug=f"t{self.random.randint(1, 4)}")
        book, other = self.any_of(Book), self.any_of(Book)
        if book is None:
            return
        if self.random.random() < 0.3:
            tag.book_set.clear()
        match self.random.randint(1, 3):
            case 1:
                book.tags.set([tag])
            case 2:
                tag.book_set.add(book)
            case 3:
                book.tags.clear()
        match self.random.randint(1, 3):
            case 1 if other is not None:
                book.friends.add(other)
            case 2 if other is not None:
                other.friends.set([])

    def breed(self) -> None:
        """With the foreign keys of both pointing at each other."""
        number = self.random.randint(1, 1000)
        Hen.objects.create(pk=number, egg_id=number)
        Egg.objects.create(pk=number, hen_id=number)

    def found(self) -> None:
        branch = self.any_of(Branch) or self.random.choice([Branch, Annex])()
        branch.town = str(self.random.random())
        branch.save()
        if book := self.any_of(Book):
            branch.books.add(book)

    def undo(self) -> None:
        found = self.any_of(self.random.choice([Shelf, Author, Book, Review, Tag, Hen, Branch, Annex]))
        if found is not None:
            found.delete()


def start_anew() -> None:
    for model in (DeadLetter, IngestPosition, IngestSource, RecordedChange, RecorderFile):
        model._base_manager.all().delete()
    empty_library()


@pytest.mark.parametrize("seed", range(6))
def test_a_log_makes_what_its_source_had(recorded: Path, seed: int, every_fault: bool) -> None:
    for number in range(seed * 1000, seed * 1000 + (30 if every_fault else 1)):
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
        assert not RecordedChange.objects.exists()


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_lines", [1, 7, 1000])
def test_nonsense_leaves_no_line_without_an_end(log: Path, seed: int, batch_lines: int) -> None:
    lines = nonsense(seed)
    append(log, *lines)
    progress = ingest(log, batch_lines)
    assert positions() == [(log.name, log.stat().st_size, len(lines))]
    assert progress.lines == len(lines)
    assert len(letters()) <= progress.dead_letters < len(lines)
    with transaction.atomic():
        strict_check()()  # no reference points nowhere
