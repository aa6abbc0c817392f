"""Comparison: one sync that Morango deserialized, compared with ours afterwards, and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django.db import models
from morango.models.certificates import Filter
from morango.models.fields.uuids import UUIDField
from typing_extensions import override

from morango_celery import clock
from morango_celery.models.formed import Formed
from morango_celery.printable import printable


class Comparisons(models.QuerySet["Comparison"]):
    """Query of comparisons."""

    deleter: ClassVar[Callable[[models.QuerySet[Any]], tuple[int, dict[str, int]]]]
    """Function of `models.deletion`, which knows the other tables and this module."""

    @override
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete comparisons. Their share in the metrics' counters is kept."""
        return type(self).deleter(self)

    delete.queryset_only = True  # type: ignore[attr-defined]  # as Django's own: no manager has it


class Comparison(Formed):
    """One comparison of a sync's records, in mode ``compare``.

    It is no run: nothing waits for it, and its records are deserialized already.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        """The sync isn't deserialized yet, or no worker has begun."""
        RUNNING = "running"
        COMPLETED = "completed"
        """The results were compared; `differences` counts the rows that differ."""
        FAILED = "failed"
        """They could not be compared; `error` says why. It isn't tried again."""

    UNFINISHED = (State.PENDING, State.RUNNING)
    ENDED = (State.COMPLETED, State.FAILED)

    profile = models.CharField(max_length=40)
    filter = models.TextField(blank=True)
    """Partition prefixes of the transfer session, one a line."""
    transfer_session_id = UUIDField(unique=True)
    """Id of the transfer session that brought the records."""
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    error = models.TextField(blank=True)
    records = models.IntegerField(null=True)
    """Number of records that both functions deserialized, targets of the sync's own included."""
    differences = models.IntegerField(null=True)
    """Number of rows that differ without a documented reason."""
    documented = models.IntegerField(null=True)
    """Number of rows that differ as ``docs/fidelity.md`` says."""
    report = models.JSONField(null=True)
    """JSON of the `Report`: ids, names and counts, and no value of a record."""
    created_at = models.DateTimeField(default=clock.now)
    sent_at = models.DateTimeField(null=True)
    """Time of the last message; NULL if none was sent, or no broker took it."""
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = Comparisons.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["state"],
                condition=models.Q(state__in=["pending", "running"]),
                name="mcelery_comparison_unfinished",
            ),
        ]

    @override
    def __str__(self) -> str:
        return f"comparison {self.pk} of {printable(self.profile)} ({self.state})"

    @override
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the comparison, as `Comparisons.delete` does."""
        return Comparison.objects.filter(pk=self.pk).delete()

    @property
    def sync_filter(self) -> Filter:
        return Filter(self.filter)
