"""Models with odd names of tables and columns: one for each way in which records are written."""

from __future__ import annotations

from typing import Any

import django
from django.db import connection, models
from morango.models import UUIDField

from tests.model_zoo.base import ZooModel
from tests.model_zoo.fields import CentsField, ColorField, LoudField, NotesField, ZonedTimeField
from tests.support.schemas import elsewhere

ODD = 'it\'s a 5 \\ ""quoted"" {name}: ' + ("$1" if django.VERSION < (4,) else "1")
"""Name of a column. Late releases of Django 4.2, and 5.2, refuse dollar signs on PostgreSQL."""


class Misnamed(ZooModel):
    """Columns with each other's names, reserved ones, or names as odd as may be."""

    id = UUIDField(primary_key=True, editable=False, db_column="Key")
    _morango_dirty_bit = models.BooleanField(default=True, editable=False, db_column="select")
    _morango_source_id = models.CharField(max_length=96, editable=False, db_column="_morango_partition")
    _morango_partition = models.CharField(max_length=128, editable=False, db_column="_morango_source_id")

    heading = models.CharField(max_length=50, null=True, blank=True, db_column="title")  # noqa: DJ001
    title = models.CharField(max_length=50, null=True, blank=True, db_column="heading")  # noqa: DJ001
    count = models.IntegerField(null=True, blank=True, db_column="order")
    order = models.CharField(max_length=20, blank=True, db_column="count")
    user = models.SmallIntegerField(default=0)
    mixedCase = models.BooleanField(null=True, blank=True)  # noqa: N815
    spaced = models.FloatField(null=True, blank=True, db_column=ODD)
    bare = models.DateField(null=True, blank=True, db_column='"Group By"')
    as_long_as_postgresql_lets_a_name_be_which_is_sixty_three_bytes = models.DateTimeField(
        null=True, blank=True
    )
    το_όνομα_αυτού_του_πεδίου_είναι_πολύ_μακρύ = models.TextField(blank=True)

    class Meta:
        abstract = True


class Cabinet(Misnamed):
    """Target of foreign keys that refer to its code."""

    morango_model_name = "cabinet"

    code = UUIDField(unique=True, db_column="id")


class Drawer(Misnamed):
    """Tree with its parents in a column of the name that each record's own key has in its JSON."""

    morango_model_name = "drawer"

    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, db_column="id")
    cabinet = models.ForeignKey(Cabinet, on_delete=models.CASCADE, to_field="code", db_column="Cabinet Id")
    lent_to = models.ForeignKey(Cabinet, on_delete=models.CASCADE, null=True, blank=True, related_name="+")

    class Meta:
        db_table = elsewhere("drawer")


class Label(Misnamed):
    """Foreign keys of every kind, without code of its own; and names in constraints."""

    morango_model_name = "label"

    drawer = models.OneToOneField(Drawer, on_delete=models.CASCADE, null=True, blank=True, db_column="id")
    cabinet = models.ForeignKey(Cabinet, on_delete=models.CASCADE, to_field="code", db_column="cabinet")
    printed_for = models.ForeignKey(
        Cabinet, on_delete=models.CASCADE, null=True, blank=True, db_column="cabinet_id", related_name="+"
    )
    number = models.IntegerField(db_column="Number")

    class Meta:
        db_table = elsewhere("Label")
        unique_together = [("cabinet", "number")]


class Tab(ZooModel):
    """Columns that would take others' values without a word, and none that would refuse them."""

    morango_model_name = "tab"

    front = models.CharField(max_length=20, blank=True, db_column="back")
    back = models.CharField(max_length=20, blank=True, db_column="front")
    width_mm = models.IntegerField(null=True, blank=True, db_column="width")
    written_at = models.DateTimeField(null=True, blank=True, db_column="Written")
    cabinet = models.ForeignKey(Cabinet, on_delete=models.CASCADE, null=True, blank=True, db_column="of")
    # Django's default name for an expression of columns
    cast1 = UUIDField(null=True, blank=True)
    replace1 = UUIDField(null=True, blank=True)


class Folder(Misnamed):
    """Fields of its own kinds, and a ``save()`` of its own."""

    morango_model_name = "folder"

    drawer = models.ForeignKey(Drawer, on_delete=models.CASCADE, db_column="folder")
    color = ColorField(null=True, blank=True, db_column="notes")
    notes = NotesField(null=True, blank=True, db_column="color")
    price = CentsField(null=True, blank=True, db_column="Price in cents")
    closed_at = ZonedTimeField(null=True, blank=True, db_column="end")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.order = (self.heading or "")[:20]
        super().save(*args, **kwargs)


class Sign(Misnamed):
    """Column that the database itself computes from its value."""

    morango_model_name = "sign"

    text = LoudField(max_length=50, db_column="Text")

    class Meta:
        db_table = elsewhere("Sign") if connection.vendor == "postgresql" else '"main"."Sign"'


class Box(Misnamed):
    """Parent table of multi-table inheritance."""

    morango_model_name: str | None = None


class Crate(Box):
    """Model with rows that span two tables, and with an own name for the link between them."""

    morango_model_name = "crate"

    box = models.OneToOneField(Box, on_delete=models.CASCADE, parent_link=True, db_column="id")
    cabinet = models.ForeignKey(Cabinet, on_delete=models.CASCADE, null=True, blank=True, db_column="Key")
