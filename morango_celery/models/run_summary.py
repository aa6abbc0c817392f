"""Summary of a run: values and texts that are computed from its columns."""

from __future__ import annotations

from morango.models.certificates import Filter
from typing_extensions import override

from morango_celery.errors import RunFailedError
from morango_celery.models.run_columns import RunColumns
from morango_celery.printable import printable
from morango_celery.version import __version__


class RunSummary(RunColumns):  # type: ignore[explicit-override]  # methods that Django makes for the columns
    """A run with all that is known from its columns alone: its end, its counts, and sentences about both."""

    class Meta(RunColumns.Meta):
        abstract = True

    # Of the foreign keys; django-stubs has them for concrete models only
    coalesced_into_id: int | None
    blocked_by_id: int | None

    @override
    def __str__(self) -> str:
        state = ", ".join(filter(None, (self.state, self.sharing)))
        return f"run {self.pk} of {printable(self.profile)} ({state})"

    @property
    def sharing(self) -> str:
        """Text such as "waits for the end of run 3" or "its records are deserialized by run 3"; or empty."""
        if self.coalesced_into_id is not None:
            verb = "were" if self.has_ended else "are"
            return f"its records {verb} deserialized by run {self.coalesced_into_id}"
        return "" if self.blocked_by_id is None else f"waits for the end of run {self.blocked_by_id}"

    @property
    def of_newer_version(self) -> str:
        """Text about a run that this version leaves alone; empty for one that it knows."""
        if self.is_known:
            return ""
        return (
            f"Run {self.pk} ({printable(self.state)}) was written by a newer version of morango_celery than "
            f"{__version__}, and is left to workers of that version."
        )

    @property
    def sync_filter(self) -> Filter | None:
        return None if self.filter is None else Filter(self.filter)

    @property
    def done(self) -> int:
        """Number of records with an outcome."""
        return sum(getattr(self, name) for name in self.COUNTS)

    @property
    def left_to_others(self) -> int:
        """Number of records that it handed out, and others had done by then; 0 unless it is completed."""
        return max(self.records - self.done, 0) if self.state == self.State.COMPLETED else 0

    @property
    def has_ended(self) -> bool:
        """Return False for a state that this version doesn't know: the newer one may go on."""
        return self.state in self.ENDED

    @property
    def is_finished(self) -> bool:
        """Return `has_ended`, by the name that version 0.2.0 documents."""
        return self.has_ended

    @property
    def progress_text(self) -> str:
        """Text such as "running: 61,000 of 100,000 records so far, 60,988 saved, 12 failed"."""
        records = f"{self.records:,} records"
        if not self.has_ended:
            # Stages to come add records that aren't counted yet
            records = f"{self.done:,} of {records} so far"
        counts = {name: getattr(self, name) for name in self.COUNTS}
        return ", ".join(
            [f"{self.state}: {records}", *(f"{count:,} {name}" for name, count in counts.items() if count)]
        )

    def require_success(self) -> None:
        """Raise an error unless the run is completed or goes on.

        :raises RunFailedError: it was cancelled, or has failed
        """
        if self.state == self.State.CANCELLED:
            raise RunFailedError(f"Run {self.pk} was cancelled.")
        if self.state == self.State.FAILED:
            raise RunFailedError(f"Run {self.pk} could not go on: {self.error}")
