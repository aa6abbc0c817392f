"""Pause: runs that are held until somebody resumes them."""

from __future__ import annotations

from django.db import models
from morango.models.certificates import Filter
from typing_extensions import override

from morango_celery import clock
from morango_celery.models.run import Run
from morango_celery.printable import printable
from morango_celery.reading.filters import overlap


class Pause(models.Model):
    """An order to begin nothing for some runs: their syncs are taken in, and wait in the ledger."""

    profile = models.CharField(max_length=40, blank=True)
    """Profile of the runs that it holds; empty for all profiles."""
    filter = models.TextField(blank=True)
    """Partition prefixes, one a line; empty for all partitions."""
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        default_permissions = ("view",)

    @override
    def __str__(self) -> str:
        return f"pause of {self.scope}"

    @property
    def sync_filter(self) -> Filter | None:
        return Filter(self.filter) if self.filter else None

    @property
    def scope(self) -> str:
        """Text such as "all runs", "school" or "school under 0123:units"."""
        if not self.profile:
            return "all runs"
        under = f" under {', '.join(self.filter.split())}" if self.filter else ""
        return printable(f"{self.profile}{under}")

    def holds(self, run: Run) -> bool:
        """Return True if the run may have a record that the pause is about.

        A run under a wider filter has, and so has one under a narrower filter.
        """
        if self.profile not in ("", run.profile):
            return False
        return overlap(self.sync_filter, run.sync_filter)
