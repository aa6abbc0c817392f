"""Histories of the library, to be recorded."""

from __future__ import annotations

import random
import uuid
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import ProtectedError

from tests.library.models import (
    Annex,
    Author,
    Book,
    Branch,
    Card,
    Egg,
    Hen,
    OldBook,
    Review,
    Shelf,
    Stamp,
    Tag,
)

LONG = "το_όνομα_αυτού_του_πεδίου_είναι_πολύ_μακρύ"


class History:
    """Does things to objects of the library, at random, some of which the database refuses."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.deeds = [
            self.shelve,
            self.write,
            self.publish,
            self.relate,
            self.breed,
            self.found,
            self.label,
            self.undo,
        ]

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
        """Make two foreign keys refer to each other."""
        number = self.random.randint(1, 1000)
        Hen.objects.create(pk=number, egg_id=number)
        Egg.objects.create(pk=number, hen_id=number)

    def found(self) -> None:
        branch = self.any_of(Branch) or self.random.choice([Branch, Annex])()
        branch.town = str(self.random.random())
        branch.save()
        if book := self.any_of(Book):
            branch.books.add(book)

    def label(self) -> None:
        card = self.any_of(Card) or Card()
        card.front, card.back = (self.random.choice([None, "", "front", "back"]) for _ in range(2))
        card.order = self.random.randint(-1, 1)
        card.book, card.written_by = self.any_of(Book), self.any_of(Author)
        setattr(card, LONG, self.random.choice([None, "long"]))
        card.save()
        if tag := self.any_of(Tag):
            card.tags.add(tag)
        Stamp.objects.update_or_create(card=card, defaults={"text": f"Stamp {card.order}"})

    def undo(self) -> None:
        found = self.any_of(
            self.random.choice([Shelf, Author, Book, Review, Tag, Hen, Branch, Annex, Card, Stamp])
        )
        if found is not None:
            found.delete()
