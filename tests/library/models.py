"""Ordinary models without Morango. Each class says its purpose."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from typing_extensions import override

from tests.model_zoo.fields import LoudField
from tests.support.schemas import elsewhere


class Shelf(models.Model):
    """A tree; its books are deleted with a shelf."""

    name = models.CharField(max_length=50)
    inside = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)


class AuthorManager(models.Manager):  # type: ignore[type-arg]  # Django 3.2's takes no parameter
    def get_by_natural_key(self, name: str) -> Any:
        return self.get(name=name)


class Author(models.Model):
    """Has a natural key, and a model-wide rule of its own in ``save()``, which a raw save leaves out."""

    name = models.CharField(max_length=50, unique=True)
    born = models.DateField(null=True)

    objects = AuthorManager()

    def natural_key(self) -> tuple[str]:
        return (self.name,)

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        self.name = self.name.strip()
        super().save(*args, **kwargs)


class Tag(models.Model):
    """Many-to-many, seen from the other side; its key is text."""

    slug = models.SlugField(primary_key=True)


class Book(models.Model):
    """Foreign keys of each kind, many-to-many values, and columns of many types."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    title = models.CharField(max_length=100)
    isbn = models.CharField(max_length=20, unique=True, null=True)
    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE, null=True)
    author = models.ForeignKey(Author, on_delete=models.PROTECT, null=True)
    successor = models.ForeignKey("self", on_delete=models.SET_NULL, null=True)
    tags = models.ManyToManyField(Tag)
    friends = models.ManyToManyField("self")
    pages = models.PositiveIntegerField(default=1)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    bought_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(auto_now=True, null=True)
    lending = models.DurationField(null=True)
    cover = models.BinaryField(null=True)
    about = models.JSONField(default=dict)
    seen_from = models.GenericIPAddressField(null=True)


class Review(models.Model):
    """A leaf; it needs its author, and a log may name that one by a natural key."""

    book = models.ForeignKey(Book, on_delete=models.CASCADE)
    author = models.ForeignKey(Author, on_delete=models.CASCADE)
    text = models.TextField(blank=True)


class Hen(models.Model):
    """One half of a cycle of foreign keys."""

    egg = models.ForeignKey("Egg", on_delete=models.CASCADE, related_name="+")


class Egg(models.Model):
    """The other half."""

    hen = models.ForeignKey(Hen, on_delete=models.CASCADE, null=True, related_name="+")


class Place(models.Model):
    """The parent table of multi-table inheritance."""

    town = models.CharField(max_length=50)


class Branch(Place):
    """Each object spans two tables."""

    books = models.ManyToManyField(Book)
    opened = models.DateField(null=True)


class Annex(Branch):
    """Three tables."""

    size = models.IntegerField(default=0)


class Card(models.Model):
    """Names that aren't those of its fields, and a table of another schema."""

    number = models.AutoField(primary_key=True, db_column="Card No")
    front = models.CharField(max_length=20, null=True, db_column="back")
    back = models.CharField(max_length=20, null=True, db_column="front")
    το_όνομα_αυτού_του_πεδίου_είναι_πολύ_μακρύ = models.TextField(null=True)
    order = models.IntegerField(default=0, db_column='it\'s ""the"" order: {x}')
    book = models.ForeignKey(Book, on_delete=models.CASCADE, null=True, db_column="id")
    written_by = models.ForeignKey(
        Author, on_delete=models.CASCADE, null=True, to_field="name", db_column="author"
    )
    tags = models.ManyToManyField(Tag)

    class Meta:
        db_table = elsewhere("Card index")


class Stamp(models.Model):
    """A column with a value that the database itself computes."""

    card = models.OneToOneField(Card, on_delete=models.CASCADE, primary_key=True, db_column="Of")
    text = LoudField(max_length=20, db_column="Text")


class OldBook(Book):
    """A proxy."""

    class Meta:
        proxy = True


class Local(models.Model):
    """A local fact about an object of the log."""

    shelf = models.ForeignKey(Shelf, on_delete=models.CASCADE)
    note = models.TextField(blank=True)


class Basket(models.Model):
    """No columns but its key: saving one writes nothing. One relation is to a model that isn't recorded."""

    tags = models.ManyToManyField(Tag)
    locals = models.ManyToManyField(Local)


class Careless(models.Model):
    """Leaves a dangling reference to the database to find."""

    shelf = models.ForeignKey(Shelf, on_delete=models.DO_NOTHING)
