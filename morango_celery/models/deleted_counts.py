"""DeletedCounts: the share of deleted rows in the ledger's counters."""

from __future__ import annotations

from django.db import models
from typing_extensions import override

from morango_celery.models.counts import Counts, Tally, added
from morango_celery.printable import printable


class DeletedCounts(models.Model):
    """Counts of the deleted rows of one profile. With them, no counter falls when rows are deleted."""

    profile = models.CharField(max_length=40, unique=True, blank=True)
    """Empty for counters without a profile."""
    counts = models.JSONField(default=dict)
    """Numbers by counter, then by label: see `Counts`."""

    class Meta:
        default_permissions = ()
        verbose_name_plural = "deleted counts"

    @override
    def __str__(self) -> str:
        return f"counts of deleted rows of {printable(self.profile or 'all profiles')}"

    @classmethod
    def keep(cls, tally: Tally) -> None:
        """Add the counts of rows that this transaction deletes.

        Cost: two statements, and one for each profile.
        """
        cls.objects.bulk_create([cls(profile=name) for name in sorted(tally)], ignore_conflicts=True)
        rows = cls.objects.select_for_update().filter(profile__in=list(tally)).order_by("profile")
        for row in rows:
            row.counts = added(row.counts, tally[row.profile])
            row.save(update_fields=["counts"])

    @classmethod
    def tally(cls) -> Tally:
        """Return all counts. Cost: one query."""
        found: dict[str, Counts] = dict(cls.objects.values_list("profile", "counts"))
        return found
