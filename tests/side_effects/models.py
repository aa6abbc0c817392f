"""Models with code that writes other rows. Each record has the deed and the name of the row.

``Slip`` has receivers only, and so is written in bulk; ``Order`` overrides all methods that Morango calls.
``Item`` is synced before them, and ``Late`` after them, for their foreign keys say so.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F
from morango.models import SyncableModel
from morango.models.manager import SyncableModelManager
from morango.models.query import SyncableModelQuerySet
from typing_extensions import override

from tests.side_effects.deeds import carry_out

PROFILE = "side_effects"


class SideEffectModel(SyncableModel):
    """One partition, and ids that follow from names, so that code of a model makes the same ones anywhere."""

    morango_profile = PROFILE

    name = models.CharField(max_length=60)

    class Meta:
        abstract = True

    def calculate_source_id(self) -> str:
        return self.name

    def calculate_partition(self) -> str:
        return "side_effects"


class Echo(SideEffectModel):
    """Counter of signals that Morango mutes."""

    morango_model_name = "echo"

    times = models.IntegerField(default=0)


class Item(SideEffectModel):
    """Row that others write. Its signals are heard, and its deletion takes the next one along."""

    morango_model_name = "item"

    number = models.IntegerField(default=0)
    next_name = models.CharField(max_length=60, blank=True)


class Part(SideEffectModel):
    """Goes with its item, and does something as it goes."""

    morango_model_name = "part"

    item = models.ForeignKey(Item, on_delete=models.CASCADE)
    deed = models.CharField(max_length=30, blank=True)
    target = models.CharField(max_length=60, blank=True)


class Label(SideEffectModel):
    """Stays when its item goes."""

    morango_model_name = "label"

    item = models.ForeignKey(Item, on_delete=models.SET_NULL, null=True, blank=True)


class Script(SideEffectModel):
    """Deed, its moment, and the name of the row that it is done to."""

    moment = models.CharField(max_length=20, blank=True)
    deed = models.CharField(max_length=30, blank=True)
    target = models.CharField(max_length=60, blank=True)
    number = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def reach(self, moment: str) -> None:
        if moment == self.moment:
            carry_out(self.deed, self.target)


class Slip(Script):
    """Model with receivers, and no code of its own."""

    morango_model_name = "slip"

    item = models.ForeignKey(Item, on_delete=models.SET_NULL, null=True, blank=True)


class Order(Script):
    """Code of its own in each place that Morango calls."""

    morango_model_name = "order"

    slip = models.ForeignKey(Slip, on_delete=models.SET_NULL, null=True, blank=True)

    @classmethod
    def deserialize(cls, dict_model: dict[str, Any], sync_filter: Any = None) -> Order:
        order: Order = super().deserialize(dict_model, sync_filter=sync_filter)
        order.reach("deserialize")
        return order

    def clean_fields(self, exclude: Any = None, sync_filter: Any = None) -> None:
        self.reach("clean_fields")
        super().clean_fields(exclude=exclude, sync_filter=sync_filter)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.reach("before save")
        super().save(*args, **kwargs)
        self.reach("after save")


class Late(SideEffectModel):
    """Model with records that come after the deeds of others' code to their rows."""

    morango_model_name = "late"

    order = models.ForeignKey(Order, on_delete=models.SET_NULL, null=True, blank=True)

    number = models.IntegerField(default=0)


class CountingQuerySet(SyncableModelQuerySet):
    """Does more than delete, as Kolibri's of users does."""

    def delete(self) -> tuple[int, dict[str, int]]:
        keepers = list(self.values_list("keeper", flat=True))
        deleted: tuple[int, dict[str, int]] = super().delete()
        Item.objects.filter(name__in=keepers).update(number=F("number") + 1)
        return deleted


class CountingManager(SyncableModelManager.from_queryset(CountingQuerySet)):  # type: ignore[misc]
    """Manager of querysets that count."""


class Counted(SideEffectModel):
    """Model with an overridden ``delete()`` of its queryset: the item of the keeper's name counts
    deletions."""

    morango_model_name = "counted"

    keeper = models.CharField(max_length=60)

    objects = CountingManager()
    syncing_objects = CountingManager()


class Seat(SideEffectModel):
    """A membership of a course or, within it, of a team; who leaves the course leaves its teams, and with the
    last one in a course its item goes. As Kolibri's memberships of classes and groups."""

    morango_model_name = "seat"

    item = models.ForeignKey(Item, on_delete=models.SET_NULL, null=True, blank=True)
    course = models.CharField(max_length=20)
    team = models.CharField(max_length=20, blank=True)
    person = models.CharField(max_length=20)
    place = models.CharField(max_length=32, default="side_effects")
    """Its partition: in a sync over HTTP, the id of the root certificate."""

    @override
    def calculate_partition(self) -> str:
        return self.place
