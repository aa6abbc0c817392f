"""RecordInError: Morango's Store rows in error, for the admin."""

from __future__ import annotations

from django.db import models
from morango.models.core import Store
from typing_extensions import override


class RecordsInError(models.Manager["RecordInError"]):
    @override
    def get_queryset(self) -> models.QuerySet[RecordInError]:
        dirty = super().get_queryset().filter(dirty_bit=True)
        return dirty.exclude(deserialization_exception=None)


class RecordInError(Store):
    """A Store row in error, for the admin: a host project may have registered Morango's own model."""

    objects = RecordsInError()

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name_plural = "records in error"

    @override
    def __str__(self) -> str:
        return f"{self.model_name} {self.pk}"
