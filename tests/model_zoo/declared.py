"""Models with code of their own that an equivalent is declared for."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from morango.models import UUIDField

from morango_celery.equivalents import Between, Computed, Equivalent, SameAs, declare, source_hash
from tests.model_zoo.base import ZooModel


class Album(ZooModel):
    """Target of a rule."""

    morango_model_name = "album"

    owner_id = UUIDField()
    name = models.CharField(max_length=20, blank=True)


class Track(ZooModel):
    """Requires its album's owner, as Kolibri's models require the dataset of their user."""

    morango_model_name = "track"

    album = models.ForeignKey(Album, on_delete=models.CASCADE, null=True, blank=True)
    owner_id = UUIDField()
    score = models.FloatField()
    title = models.CharField(max_length=20)
    slug = models.CharField(max_length=20, blank=True)
    number = models.IntegerField(null=True, blank=True, unique=True)

    def clean_fields(self, exclude: Any = None, sync_filter: Any = None) -> None:
        if not self.owner_id:
            raise ValidationError("A track needs an owner.")
        super().clean_fields(exclude=exclude, sync_filter=sync_filter)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.require()
        self.slug = slug_of(self.title)
        super().save(*args, **kwargs)

    def require(self) -> None:
        if self.album is not None and self.album.owner_id != self.owner_id:
            raise ValidationError("The track's owner isn't that of its album.")
        if not 0 <= self.score <= 10:
            raise ValidationError("The score is out of range.")


def slug_of(title: str) -> str:
    return title.casefold().replace(" ", "-")


OVERRIDES = ("save", "clean_fields")
CALLS = ("require", "tests.model_zoo.declared.slug_of")
RULES = (
    SameAs("owner_id", "album"),
    Between("score", 0, 10),
    Computed("slug", ("title",), slug_of),
)


def declare_all() -> None:
    sha256 = source_hash(Track, (*OVERRIDES, *CALLS))
    declare(Track, Equivalent(OVERRIDES, CALLS, sha256, RULES))
