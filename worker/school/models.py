"""Syncable models of the profile ``school``, and the account that may hand out certificates.

The id of a school's root certificate is its `school_id`: the primary partition of everything below it.
Together the models have all that is hard for a bulk writer: a self-referential tree, two levels of foreign
keys, null foreign keys, a unique constraint, validators, choices and an overridden ``save()``.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from morango.models import SyncableModel, UUIDField
from typing_extensions import override

PROFILE = "school"


class Account(AbstractUser):  # type: ignore[explicit-override]  # mypy's plugin adds its methods
    """A user of this server, not synced."""

    def has_morango_certificate_scope_permission(
        self, scope_definition_id: str, scope_params: dict[str, str]
    ) -> bool:
        """Return True if this account may sign certificates. Morango asks for devices with its password."""
        return self.is_active and self.is_superuser


class WrongSchoolError(ValidationError):
    """A record refers to a record of another school."""


class SchoolModel(SyncableModel):
    """Base of the profile's models, with random ids within their partition."""

    morango_profile = PROFILE

    class Meta:
        abstract = True

    def calculate_source_id(self) -> str | None:
        return None


class Unit(SchoolModel):
    """A school (which has no parent), a department or a class."""

    morango_model_name = "unit"

    school_id = UUIDField()
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True)
    name = models.CharField(max_length=100)

    def calculate_partition(self) -> str:
        return f"{self.school_id}:units"

    @override
    def __str__(self) -> str:
        return self.name


class Learner(SchoolModel):
    """A learner. Its ``save()`` is overridden and reads the unit, as in Kolibri's models."""

    morango_model_name = "learner"

    school_id = UUIDField()
    unit = models.ForeignKey(Unit, on_delete=models.CASCADE)
    username = models.CharField(max_length=40)
    full_name = models.CharField(max_length=120)
    search_name = models.CharField(max_length=360, blank=True, editable=False)  # case folding lengthens
    birth_year = models.IntegerField(
        null=True, blank=True, validators=[MinValueValidator(1900), MaxValueValidator(2100)]
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["username"], name="school_learner_username")]

    def calculate_partition(self) -> str:
        return f"{self.school_id}:learner:{self.ID_PLACEHOLDER}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Derive `search_name` from `full_name`.

        :raises WrongSchoolError: the unit belongs to another school
        """
        self.search_name = " ".join(self.full_name.casefold().split())
        if self.school_id != self.unit.school_id:
            raise WrongSchoolError(
                "The learner's school %(learner)s is not its unit's school %(unit)s.",
                code="wrong_school",
                params={"learner": self.school_id, "unit": self.unit.school_id},
            )
        if kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {*kwargs["update_fields"], "search_name"}
        super().save(*args, **kwargs)

    @override
    def __str__(self) -> str:
        return self.full_name


class Lesson(SchoolModel):
    morango_model_name = "lesson"

    school_id = UUIDField()
    unit = models.ForeignKey(Unit, on_delete=models.CASCADE)
    title = models.CharField(max_length=200)
    opens_at = models.DateTimeField(null=True, blank=True)

    def calculate_partition(self) -> str:
        return f"{self.school_id}:lessons"

    @override
    def __str__(self) -> str:
        return self.title


class Attempt(SchoolModel):
    """One answer of a learner; most records of a school are of this kind."""

    class Kind(models.TextChoices):
        EXERCISE = "exercise"
        QUIZ = "quiz"
        SURVEY = "survey"

    morango_model_name = "attempt"

    learner = models.ForeignKey(Learner, on_delete=models.CASCADE)
    lesson = models.ForeignKey(Lesson, on_delete=models.CASCADE, null=True, blank=True)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.EXERCISE)
    score = models.FloatField(validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    answered_at = models.DateTimeField()
    answer = models.TextField(blank=True)

    def calculate_partition(self) -> str:
        return f"{self.learner.school_id}:learner:{self.learner_id}"

    @override
    def __str__(self) -> str:
        return f"{self.kind} of {self.learner_id}"


class Feedback(SchoolModel):
    """A teacher's remark on an attempt, in the attempt's partition."""

    morango_model_name = "feedback"

    attempt = models.ForeignKey(Attempt, on_delete=models.CASCADE)
    text = models.TextField()

    def calculate_partition(self) -> str:
        return self.attempt.calculate_partition()

    @override
    def __str__(self) -> str:
        return self.text
