"""Columns of runs: a request, its progress and its result, as the ledger stores them."""

from __future__ import annotations

from django.db import models
from morango.models.fields.uuids import UUIDField

from morango_celery import clock
from morango_celery.models.formed import Formed


class RunColumns(Formed):
    """The states and columns of a run, with the indexes on them."""

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

    COUNTS = ("saved", "deleted", "propagated", "conflicted", "failed")
    """Columns that count the outcomes of records."""

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

    class Meta:
        abstract = True
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
