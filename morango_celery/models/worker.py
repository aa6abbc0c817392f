"""Worker: the last sign of life of a Celery worker."""

from __future__ import annotations

from django.db import models
from typing_extensions import override

from morango_celery import clock
from morango_celery.printable import printable


class Worker(models.Model):
    """A worker that has carried out a task of recovery, which each worker asks for at intervals.

    The ledger knows by it that somebody takes messages, without a question to the workers or the broker.
    """

    name = models.CharField(max_length=255, unique=True)
    """Its node name, such as ``celery@host``."""
    version = models.CharField(max_length=40, blank=True)
    """Version of this package that it has."""
    seen_at = models.DateTimeField(default=clock.now)
    """Time at which it last carried out such a task."""

    class Meta:
        default_permissions = ("view",)

    @override
    def __str__(self) -> str:
        return printable(self.name)
