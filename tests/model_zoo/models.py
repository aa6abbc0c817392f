"""Models of each kind that Morango allows, one syncable model each. Each class names its kind."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from morango.models import UUIDField
from morango.models.manager import SyncableModelManager

from tests.model_zoo.base import PROFILE, ZooModel
from tests.model_zoo.declared import Album, Choir, Ensemble, Player, Track, Voice
from tests.model_zoo.fields import WordsField
from tests.model_zoo.misnamed import Box, Cabinet, Crate, Drawer, Folder, Label, Sign, Tab

__all__ = [
    "PROFILE",
    "Album",
    "Box",
    "Cabinet",
    "Choir",
    "Crate",
    "Drawer",
    "Ensemble",
    "Folder",
    "Label",
    "Player",
    "Sign",
    "Tab",
    "Track",
    "Voice",
    "ZooModel",
]


class Site(ZooModel):
    """Tree in one table with registered proxies, and itself unregistered; as Kolibri's collections."""

    morango_model_name: str | None = None
    _KIND = ""

    kind = models.CharField(max_length=10)
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    name = models.CharField(max_length=50)

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._KIND:
            self.kind = self._KIND
        super().save(*args, **kwargs)


class RegionManager(SyncableModelManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(kind="region")


class Region(Site):
    morango_model_name = "region"
    _KIND = "region"

    objects = RegionManager()
    syncing_objects = RegionManager()

    class Meta:
        proxy = True


class TownManager(SyncableModelManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(kind="town")


class Town(Site):
    """Depends on another proxy of its table by name only."""

    morango_model_name = "town"
    morango_model_dependencies = (Region,)
    _KIND = "town"

    objects = TownManager()
    syncing_objects = TownManager()

    class Meta:
        proxy = True


class Person(ZooModel):
    """Points at a model that isn't registered; overrides ``deserialize`` and ``clean_fields``."""

    morango_model_name = "person"
    morango_model_dependencies = (Region, Town)

    home = models.ForeignKey(Site, on_delete=models.CASCADE)
    name = models.CharField(max_length=50)
    initials = models.CharField(max_length=5, blank=True)

    @classmethod
    def deserialize(cls, dict_model: dict[str, Any], sync_filter: Any = None) -> Person:
        """Accept the key of an older version."""
        if "full_name" in dict_model:
            dict_model["name"] = dict_model.pop("full_name")
        person: Person = super().deserialize(dict_model, sync_filter=sync_filter)
        return person

    def clean_fields(self, exclude: Any = None, sync_filter: Any = None) -> None:
        super().clean_fields(exclude=exclude, sync_filter=sync_filter)
        if self.name == "Nobody":
            raise ValidationError("Nobody is no name.", code="nobody")
        self.initials = "".join(word[0] for word in self.name.split())[:5]


class Card(ZooModel):
    """One-to-one relation: a foreign key that is unique; and a foreign key that is set to null."""

    morango_model_name = "card"

    person = models.OneToOneField(Person, on_delete=models.CASCADE)
    issued_at = models.ForeignKey(Site, on_delete=models.SET_NULL, null=True, blank=True)


class Club(ZooModel):
    """One half of a cycle of foreign keys."""

    morango_model_name = "club"

    president = models.ForeignKey(
        "Member", on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    name = models.CharField(max_length=50)


class Member(ZooModel):
    """Other half of the cycle; unique together within its club."""

    morango_model_name = "member"

    club = models.ForeignKey(Club, on_delete=models.CASCADE)
    number = models.IntegerField()

    class Meta:
        unique_together = [("club", "number")]


class Vehicle(ZooModel):
    """Parent table of multi-table inheritance."""

    morango_model_name: str | None = None

    plate = models.CharField(max_length=20, unique=True)


class Lorry(Vehicle):
    """Each row spans two tables."""

    morango_model_name = "lorry"

    owner = models.ForeignKey(Person, on_delete=models.CASCADE, null=True, blank=True)
    load_kg = models.PositiveIntegerField()


class Step(ZooModel):
    """``save()`` wants a sibling row to be there first, as Kolibri's memberships do."""

    morango_model_name = "step"

    trail = models.CharField(max_length=20)
    number = models.IntegerField()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the step behind the one before it.

        :raises Step.DoesNotExist: the step before this one isn't there
        """
        if self.number > 1:
            Step.objects.get(trail=self.trail, number=self.number - 1)
        super().save(*args, **kwargs)


class OpenManager(SyncableModelManager):
    def get_queryset(self) -> Any:
        return super().get_queryset().filter(closed=False)


class Letter(ZooModel):
    """Default manager that hides rows which ``syncing_objects`` shows; and a key to a protected row."""

    morango_model_name = "letter"

    closed = models.BooleanField(default=False)
    text = models.TextField(blank=True)
    sender = models.ForeignKey(Member, on_delete=models.PROTECT, null=True, blank=True)

    objects = OpenManager()
    syncing_objects = SyncableModelManager()


class Sample(ZooModel):
    """Every type of column, and the clock's."""

    morango_model_name = "sample"
    morango_fields_not_to_serialize = ("secret",)

    words = WordsField(blank=True, default=list)
    flag = models.BooleanField(null=True, blank=True)
    small = models.SmallIntegerField(default=0)
    big = models.BigIntegerField(default=0)
    positive = models.PositiveIntegerField(default=0)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True, blank=True)
    ratio = models.FloatField(default=0.0)
    day = models.DateField(null=True, blank=True)
    hour = models.TimeField(null=True, blank=True)
    moment = models.DateTimeField(null=True, blank=True)
    length = models.DurationField(null=True, blank=True)
    slug = models.SlugField(blank=True)
    mail = models.EmailField(blank=True)
    link = models.URLField(blank=True)
    address = models.GenericIPAddressField(null=True, blank=True)
    other_id = UUIDField(null=True, blank=True)
    data = models.JSONField(null=True, blank=True)
    color = models.CharField(max_length=5, choices=[("red", "Red"), ("green", "Green")], blank=True)
    secret = models.CharField(max_length=10, default="local")


class Reading(ZooModel):
    """Columns that take the fast path from JSON to row, for no code but Morango's has a say."""

    morango_model_name = "reading"

    day = models.DateField(null=True, blank=True)
    moment = models.DateTimeField(null=True, blank=True)
    small = models.SmallIntegerField(default=0)
    big = models.BigIntegerField(default=0)
    positive = models.PositiveIntegerField(default=0)
    positive_small = models.PositiveSmallIntegerField(default=0)
    positive_big = models.PositiveBigIntegerField(default=0)
    checked = models.BooleanField(null=True, blank=True, default=True)


class Visit(ZooModel):
    """Columns that are filled by the clock on an ordinary ``save()``."""

    morango_model_name = "visit"

    person = models.ForeignKey(Person, on_delete=models.CASCADE)
    began_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
