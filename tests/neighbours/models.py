"""Models whose code looks at other rows, which the same sync may write, or writes them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import django
from django.core.exceptions import ValidationError
from django.db import models, transaction
from morango.models import SyncableModel
from morango.models.manager import SyncableModelManager
from morango.models.query import SyncableModelQuerySet
from mptt.managers import TreeManager
from mptt.models import MPTTModel, TreeForeignKey
from mptt.querysets import TreeQuerySet
from typing_extensions import override

PROFILE = "neighbours"
REFUSED = "refused by the table"
UNSAVED = "refused by save()"


def constraint(name: str, condition: models.Q) -> models.CheckConstraint:
    """Return a constraint of a table; Django 5.1 has renamed an argument."""
    arguments: dict[str, Any] = {"name": name, "check" if django.VERSION < (5, 1) else "condition": condition}
    return models.CheckConstraint(**arguments)


class NeighbourModel(SyncableModel):
    """Random ids within one partition, and a name that a second sync changes."""

    morango_profile = PROFILE

    name = models.CharField(max_length=50)

    class Meta:
        abstract = True

    def calculate_source_id(self) -> str | None:
        return None

    def calculate_partition(self) -> str:
        return "neighbours"


class Place(NeighbourModel):
    """``save()`` follows its parent, and the parent's parent. One name it refuses, another the table."""

    morango_model_name = "place"

    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    path = models.TextField(blank=True)
    grandparent_name = models.CharField(max_length=50, blank=True)

    class Meta:
        constraints = [constraint("place_name", ~models.Q(name=REFUSED))]

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.name == UNSAVED:
            raise ValueError("It isn't saved.")
        self.path = f"{self.parent.path}/{self.name}" if self.parent else self.name
        self.grandparent_name = self.parent.parent.name if self.parent and self.parent.parent else ""
        super().save(*args, **kwargs)


class Shelf(NeighbourModel):
    """``clean_fields()`` follows its parent, whose values must fit."""

    morango_model_name = "shelf"

    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    path = models.TextField(blank=True)

    def clean_fields(self, exclude: Any = None, sync_filter: Any = None) -> None:
        if self.parent and self.parent.name == "full":
            raise ValidationError("There is no room.", code="full")
        self.path = f"{self.parent.path}/{self.name}" if self.parent else self.name
        super().clean_fields(exclude=exclude, sync_filter=sync_filter)


class Entry(NeighbourModel):
    """Queries of its own ask for its parent, in each place that Morango calls."""

    morango_model_name = "entry"

    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    parsed = models.TextField(blank=True)
    cleaned = models.TextField(blank=True)
    saved = models.TextField(blank=True)

    @classmethod
    def deserialize(cls, dict_model: dict[str, Any], sync_filter: Any = None) -> Entry:
        dict_model["parsed"] = cls._path("parsed", dict_model["parent_id"], dict_model["name"])
        entry: Entry = super().deserialize(dict_model, sync_filter=sync_filter)
        return entry

    def clean_fields(self, exclude: Any = None, sync_filter: Any = None) -> None:
        self.cleaned = self._path("cleaned", self.parent_id, self.name)
        super().clean_fields(exclude=exclude, sync_filter=sync_filter)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.saved = self._path("saved", self.parent_id, self.name)
        super().save(*args, **kwargs)

    @staticmethod
    def _path(column: str, parent_id: str | None, name: str) -> str:
        return name if parent_id is None else f"{getattr(Entry.objects.get(pk=parent_id), column)}/{name}"


class Link(NeighbourModel):
    """A chain by a one-to-one relation, followed from both ends."""

    morango_model_name = "link"

    parent = models.OneToOneField(
        "self", on_delete=models.CASCADE, null=True, blank=True, related_name="next"
    )
    path = models.TextField(blank=True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.path = f"{self.parent.path}/{self.parent.next.name}" if self.parent else self.name
        super().save(*args, **kwargs)


class Ticket(NeighbourModel):
    """``save()`` numbers what is new, by the highest number there is."""

    morango_model_name = "ticket"

    number = models.IntegerField(default=0)

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self.number:
            highest = Ticket.objects.aggregate(highest=models.Max("number"))["highest"]
            self.number = 1 + (highest or 0)
        super().save(*args, **kwargs)


class Claim(NeighbourModel):
    """``save()`` has savepoints of its own, looks at its table inside, and may go back to them.

    Its name says what it does: "gives up" what it did inside of a savepoint, its own saving included;
    "goes on" after giving up a query; or neither.
    """

    morango_model_name = "claim"

    before = models.IntegerField(default=0)

    def save(self, *args: Any, **kwargs: Any) -> None:
        with suppress(GivenUp), transaction.atomic():
            self.before = Claim.objects.exclude(pk=self.pk).count()
            if self.name == "goes on":
                raise GivenUp
            super().save(*args, **kwargs)
            if self.name == "gives up":
                raise GivenUp
        if self.name == "goes on":
            super().save(*args, **kwargs)


class Tally(models.Model):
    """The number of votes on a subject; isn't synced."""

    subject = models.CharField(max_length=20, unique=True)
    votes = models.IntegerField(default=0)

    @override
    def __str__(self) -> str:
        return self.subject


class Vote(NeighbourModel):
    """``save()`` counts in a row of another table, as code does that knows of no others."""

    morango_model_name = "vote"

    subject = models.CharField(max_length=20)

    def save(self, *args: Any, **kwargs: Any) -> None:
        tally, _ = Tally.objects.get_or_create(subject=self.subject)
        super().save(*args, **kwargs)
        tally.votes += 1
        tally.save()


class Memo(NeighbourModel):
    """Has no code of its own, and is handed out together with votes and tickets."""

    morango_model_name = "memo"


class BranchQuerySet(TreeQuerySet, SyncableModelQuerySet):
    """Django-mptt's and Morango's."""


class BranchManager(TreeManager.from_queryset(BranchQuerySet), SyncableModelManager):  # type: ignore[misc]
    """Django-mptt's and Morango's."""


class Branch(MPTTModel, NeighbourModel):
    """A tree of django-mptt, whose columns each database has its own values of."""

    morango_model_name = "branch"
    morango_fields_not_to_serialize = ("lft", "rght", "tree_id", "level")

    parent = TreeForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="children")

    objects = BranchManager()
    syncing_objects = BranchManager()


class GivenUp(Exception):  # noqa: N818  (not an error)
    """The signal to undo the inside of a savepoint."""


class Heap(NeighbourModel):
    """``save()`` counts in the parent's row, which it follows and saves."""

    morango_model_name = "heap"

    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    saved_below = models.IntegerField(default=0)

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        if self.parent:
            Heap.objects.filter(pk=self.parent.pk).update(
                saved_below=self.parent.saved_below + 1, update_dirty_bit_to=False
            )


class Zone(NeighbourModel):
    """A tree in one table whose proxies are registered; the same row is seen as each of them."""

    morango_model_name: str | None = None
    _KIND = ""

    kind = models.CharField(max_length=10)
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    country = models.ForeignKey(
        "Country", on_delete=models.CASCADE, null=True, blank=True, related_name="zones_within"
    )
    path = models.TextField(blank=True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.kind = self._KIND
        above = f"{self.parent.path}/" if self.parent else ""
        country = f" of {self.country.path}" if self.country else ""
        self.path = f"{above}{self.name}{country}"
        super().save(*args, **kwargs)


class CountryManager(SyncableModelManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(kind="country")


class Country(Zone):
    morango_model_name = "country"
    _KIND = "country"

    objects = CountryManager()
    syncing_objects = CountryManager()

    class Meta:
        proxy = True


class CityManager(SyncableModelManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(kind="city")


class City(Zone):
    morango_model_name = "city"
    morango_model_dependencies = (Country,)
    _KIND = "city"

    objects = CityManager()
    syncing_objects = CityManager()

    class Meta:
        proxy = True


class Guest(NeighbourModel):
    """Follows what no record of its batch can write, and what that leads to."""

    morango_model_name = "guest"
    morango_model_dependencies = (City,)

    place = models.ForeignKey(Place, on_delete=models.CASCADE)
    city = models.ForeignKey(Zone, on_delete=models.CASCADE, null=True, blank=True)
    address = models.TextField(blank=True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        above = self.place.parent.path if self.place.parent else ""
        city = self.city.path if self.city else ""
        self.address = f"{self.place.path}, {above}, {city}"
        super().save(*args, **kwargs)
