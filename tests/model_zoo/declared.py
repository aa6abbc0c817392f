"""Models with code of their own that an equivalent is declared for."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from morango.models import UUIDField

from morango_celery.equivalents import (
    Between,
    Computed,
    Equivalent,
    RowExists,
    SameAs,
    TargetIn,
    declare,
    source_hash,
)
from tests.model_zoo.base import ZooModel
from tests.model_zoo.fields import KeyWithItsForm


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


class Ensemble(ZooModel):
    """Target of rules: a whole orchestra, a section of one, or its audience."""

    morango_model_name = "ensemble"

    kind = models.CharField(max_length=20)
    whole_id = UUIDField(null=True, blank=True)


class Player(ZooModel):
    """Plays in a section only with a row for the whole, as Kolibri's learners of a group are in its class."""

    morango_model_name = "player"

    ensemble = KeyWithItsForm(Ensemble, on_delete=models.CASCADE)
    person_id = UUIDField()
    part = models.CharField(max_length=10, blank=True)
    seat = models.IntegerField(null=True, blank=True, unique=True)

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.require_place()
        super().save(*args, **kwargs)

    def require_place(self) -> None:
        """Check the ensemble.

        :raises ValidationError: nobody plays in it, or not without playing in the whole
        """
        if self.ensemble.kind == AUDIENCE:
            raise ValidationError("Nobody plays in an audience.")
        if self.ensemble.kind == SECTION and not self.plays_in(self.ensemble.whole_id):
            raise ValidationError("Plays in a section, and not in the whole.")

    def plays_in(self, ensemble_id: str | None) -> bool:
        found: bool = Player.objects.filter(ensemble_id=ensemble_id, person_id=self.person_id).exists()
        return found


class Choir(ZooModel):
    """Half of a cycle of models."""

    morango_model_name = "choir"

    owner_id = UUIDField()
    soloist = models.ForeignKey("Voice", on_delete=models.CASCADE, null=True, blank=True, related_name="+")


class Voice(ZooModel):
    """Other half of the cycle, with a rule about the first one."""

    morango_model_name = "voice"

    choir = models.ForeignKey(Choir, on_delete=models.CASCADE)
    owner_id = UUIDField()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the voice.

        :raises ValidationError: its owner is another one than the choir's
        """
        if self.choir.owner_id != self.owner_id:
            raise ValidationError("The voice's owner isn't that of its choir.")
        super().save(*args, **kwargs)


WHOLE, SECTION, AUDIENCE = "whole", "section", "audience"

OVERRIDES = ("save", "clean_fields")
CALLS = ("require", "tests.model_zoo.declared.slug_of")
RULES = (
    SameAs("owner_id", "album"),
    Between("score", 0, 10),
    Computed("slug", ("title",), slug_of),
)


PLAYER_CALLS = (
    "require_place",
    "plays_in",
    "tests.model_zoo.declared.SECTION",
    "tests.model_zoo.declared.AUDIENCE",
)
PLAYER_RULES = (
    TargetIn("ensemble", "kind", (WHOLE, SECTION)),
    RowExists(
        (("ensemble_id", "ensemble.whole_id"), ("person_id", "person_id")),
        when=TargetIn("ensemble", "kind", (SECTION,)),
    ),
)


def declare_all() -> None:
    sha256 = source_hash(Track, (*OVERRIDES, *CALLS))
    declare(Track, Equivalent(OVERRIDES, CALLS, sha256, RULES))
    sha256 = source_hash(Player, ("save", *PLAYER_CALLS))
    declare(Player, Equivalent(("save",), PLAYER_CALLS, sha256, PLAYER_RULES))
    voice = Equivalent(("save",), (), source_hash(Voice, ("save",)), (SameAs("owner_id", "choir"),))
    declare(Voice, voice)
