"""Run: one deserialization as it was requested, its progress, and its result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.db import connection, models, transaction
from django.db.models import Q, Subquery
from morango.models.certificates import Filter
from morango.models.fields.uuids import UUIDField
from typing_extensions import override

from morango_celery import clock
from morango_celery.db.prepared import Statement, anything, concrete_fields, kept, number, updating
from morango_celery.errors import FatalError, RunFailedError
from morango_celery.models.formed import Formed
from morango_celery.models.run_log import log_end
from morango_celery.printable import printable
from morango_celery.version import FORM, __version__


class Runs(models.QuerySet["Run"]):
    """Query of runs."""

    deleter: ClassVar[Callable[[models.QuerySet[Any]], tuple[int, dict[str, int]]]]
    """Function of `models.deletion`, which knows the other tables and this module."""

    @override
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete runs with their batches. Their share in the metrics' counters is kept."""
        return type(self).deleter(self)

    delete.queryset_only = True  # type: ignore[attr-defined]  # as Django's own: no manager has it


class Run(Formed):
    """One deserialization of a profile under a sync filter."""

    class State(models.TextChoices):
        PENDING = "pending"
        """Written to the ledger, and begun by no worker."""
        RUNNING = "running"
        COMPLETED = "completed"
        """Every record was tried; some may be in error."""
        FAILED = "failed"
        """It could not go on; `error` says why."""
        CANCELLED = "cancelled"
        """Somebody ended it; the records that were left are still dirty."""

    MOVES = {
        State.PENDING: {State.RUNNING, State.FAILED, State.CANCELLED},
        State.RUNNING: {State.COMPLETED, State.FAILED, State.CANCELLED},
        State.COMPLETED: set[State](),
        State.FAILED: set[State](),
        State.CANCELLED: set[State](),
    }

    UNFINISHED = (State.PENDING, State.RUNNING)
    ENDED = (State.COMPLETED, State.FAILED, State.CANCELLED)
    """A state of a newer version is in neither of the two."""

    profile = models.CharField(max_length=40)
    filter = models.TextField(null=True, blank=True)  # noqa: DJ001  (the empty filter is one)
    """Partition prefixes, one a line; NULL for the whole profile."""
    skip_erroring = models.BooleanField(default=False)
    retry_errors = models.BooleanField(default=False)
    """Only the records that were in error when it started."""
    only_model = models.CharField(max_length=40, blank=True)
    """Name of the only model whose records are retried; empty for all."""
    only_exception = models.TextField(blank=True)
    """The only exception whose records are retried, as a path or a name alone; empty for all."""
    serialize_first = models.BooleanField(default=True)
    in_process = models.BooleanField(default=False)
    """Carried out by the process that wrote it: no message is ever sent for it."""
    transfer_session_id = UUIDField(null=True, blank=True, unique=True)
    """Id of the transfer session that waits for this run as its deserializing stage."""
    retry_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="retries")
    """The run that this one does again."""
    # Without constraints: their checks lock the other run's row, and so do runs that begin at the same time
    blocked_by = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.SET_NULL,
        related_name="blocked",
        db_index=False,
        db_constraint=False,
    )
    """The run that has to end before this one begins: its records lie under this one's filter."""
    coalesced_into = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.SET_NULL,
        related_name="coalesced",
        db_index=False,
        db_constraint=False,
    )
    """The run that took this one in before it had begun, and deserializes its records too."""
    paused = models.BooleanField(default=False)
    """True if a pause holds it, as far as somebody has looked: nothing of it is begun or sent."""
    coalesced_runs = models.IntegerField(default=0)
    """Number of runs that were coalesced into this one."""
    session_notified = models.BooleanField(default=False)
    """True once the transfer session has the outcome, or if no session waits for it."""
    finalized = models.BooleanField(default=False)
    """True once everything that follows the end of the run was done, its signal included."""

    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    error = models.TextField(blank=True)
    step = models.IntegerField(default=0)
    """Index of the next step of the plan."""
    stage = models.IntegerField(default=0)
    """Number of stages opened so far."""
    pass_number = models.IntegerField(default=1)
    stage_models = models.TextField(blank=True)
    """Names of the models of the current stage, for the reader."""
    stage_batches = models.IntegerField(default=0)
    """Number of batches of the current stage, including the parts of split batches."""
    open_batches = models.IntegerField(default=0)
    """Batches of the open stage that are not done; at 0 the next stage may be opened."""
    attempts = models.IntegerField(default=0)
    """Number of workers that began to open the next stage, or to finalize the run, and did not end that."""
    retryable_failures = models.IntegerField(default=0)
    """Failed records of this pass that another pass may save."""
    previous_retryable_failures = models.IntegerField(null=True)
    previous_failures = models.IntegerField(default=0)
    """Records that were in error when it began, and that it tries again."""

    records = models.IntegerField(default=0)
    saved = models.IntegerField(default=0)
    deleted = models.IntegerField(default=0)
    propagated = models.IntegerField(default=0)
    conflicted = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)

    created_at = models.DateTimeField(default=clock.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    """Time of the last message for the run; NULL if none was sent, or no broker took it."""
    last_activity_at = models.DateTimeField(default=clock.now)
    """Time at which a batch of the run was last done, or a stage opened."""
    overdue_at = models.DateTimeField(null=True)
    """Time from which recovery takes the run up, if no batch is open and nobody is at it; NULL: at once."""

    objects = Runs.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["state"],
                condition=models.Q(state__in=["pending", "running"]),
                name="mcelery_run_unfinished",
            ),
            models.Index(
                fields=["state"],
                condition=models.Q(session_notified=False) | models.Q(finalized=False),
                name="mcelery_run_unsettled",
            ),
            models.Index(
                fields=["blocked_by"],
                condition=models.Q(blocked_by__isnull=False),
                name="mcelery_run_blocked",
            ),
            models.Index(
                fields=["coalesced_into"],
                condition=models.Q(coalesced_into__isnull=False),
                name="mcelery_run_coalesced",
            ),
        ]

    COUNTS = ("saved", "deleted", "propagated", "conflicted", "failed")

    has_released = False
    """True if other runs may begin since this instance wrote the end of the run."""

    @override
    def __str__(self) -> str:
        state = ", ".join(filter(None, (self.state, self.sharing)))
        return f"run {self.pk} of {printable(self.profile)} ({state})"

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save as Django does. A time that the database has set is read on first access."""
        super().save(*args, **kwargs)
        for name, value in list(vars(self).items()):
            if hasattr(value, "resolve_expression"):
                delattr(self, name)

    @override
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the run with its batches, as `Runs.delete` does."""
        return Run.objects.filter(pk=self.pk).delete()

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

    def move_to(self, state: State, error: str = "") -> None:
        """Change the state of a row that is locked by this transaction, and save it.

        :raises FatalError: the ledger knows no such move
        """
        self.change_state(state, error)
        self.save_active()
        if self.has_ended:
            self._let_others_go_on()
            self._log_end_on_commit()

    def change_state(self, state: State, error: str = "") -> None:
        """Change the state of a row that this transaction has locked, and the caller saves.

        :raises FatalError: the ledger knows no such move
        """
        if not self.is_known:
            raise FatalError(f"{self.of_newer_version} It can't become {state.value} here.")
        if state not in self.MOVES[self.State(self.state)]:
            raise FatalError(f"Run {self.pk} is {self.state}; it can't become {state.value}.")
        self.state = state
        self.error = error
        if state is self.State.RUNNING:
            self.started_at = clock.now()
        elif self.has_ended:
            self.finished_at = clock.now()
            self.blocked_by = None
            self.paused = False

    def take_over(self) -> None:
        """Make an unknown row, locked by this transaction, one of this version's, to be ended and saved.

        What a newer version knows of it is lost. Its batches stay as they are, since nobody executes those of
        an ended run.
        """
        self.form = FORM
        if not self.is_known:
            self.state = self.State.RUNNING

    def _log_end_on_commit(self) -> None:
        reason = self.error if self.state == self.State.FAILED else ""
        line = partial(log_end, self.pk, self.progress_text, failed_records=self.failed, reason=reason)
        transaction.on_commit(line)

    def _let_others_go_on(self) -> None:
        """Complete the runs that were coalesced into this one if it is completed, else release them; release
        those that it blocked."""
        if self.coalesced_runs:
            taken_in = Run.objects.filter(coalesced_into=self, state=self.State.PENDING)
            if self.state == self.State.COMPLETED:
                own = Run.objects.filter(pk=self.pk)
                started_at, now = Subquery(own.values("started_at")), clock.now()
                taken_in.update(
                    state=self.state,
                    started_at=started_at,
                    finished_at=now,
                    last_activity_at=now,
                    paused=False,
                )
            else:
                released = taken_in.update(coalesced_into=None, sent_at=None, overdue_at=None)
                self.has_released |= released > 0
        self.has_released |= _releasing(self.coalesced_runs > 0).execute(self.pk, self.pk) > 0

    def save_active(self) -> None:
        """Save the row, with now as the time of the last activity."""
        self.last_activity_at = clock.now()
        self._save_loaded()
        if self.has_ended and self.open_batches:
            self.batches.all().forget_ids()

    def _save_loaded(self) -> None:
        """Save the loaded columns of an existing row, by a statement that is compiled once."""
        columns = vars(self)
        loaded = [f for f in concrete_fields(Run) if not f.primary_key and f.attname in columns]
        names = tuple(field.attname for field in loaded)
        times = frozenset(name for name in names if hasattr(columns[name], "resolve_expression"))
        values = (
            field.get_db_prep_save(columns[field.attname], connection)
            for field in loaded
            if field.attname not in times
        )
        _saving(names, times).execute(self.pk, *values)
        for name in times:  # which is read when somebody asks for it
            delattr(self, name)

    @classmethod
    def locked(cls, run_id: int, **annotations: Any) -> Run:
        """Return the row, locked until the end of the transaction.

        :param annotations: of the query
        :raises Run.DoesNotExist: it was deleted
        """
        return cls.objects.select_for_update().annotate(**annotations).get(pk=run_id)


@kept
def _releasing(has_coalesced: bool) -> Statement:
    """Return the statement that releases the runs which one that has ended blocked.

    :param has_coalesced: whether runs that were coalesced into the one that has ended may block others, too
    """
    blocked = Q(blocked_by=number(0))
    if has_coalesced:
        blocked |= Q(blocked_by__coalesced_into=number(1))
    return updating(Run.objects.filter(blocked), {"blocked_by": None, "sent_at": None, "overdue_at": None})


@kept
def _saving(names: tuple[str, ...], times: frozenset[str]) -> Statement:
    """Return the statement that saves some columns of a run.

    :param times: columns that get the time of the statement
    """
    values = (name for name in names if name not in times)
    columns = {name: clock.now() for name in times}
    columns |= {name: anything(place) for place, name in enumerate(values, start=1)}
    return updating(Run.objects.filter(pk=number(0)), columns)
