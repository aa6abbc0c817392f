"""The ledger: runs as they were requested, the batches handed out for them, and the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from django.db import connection, models
from django.db.models import Exists, F, OuterRef, Q, Subquery
from morango.models.certificates import Filter
from morango.models.core import Store
from morango.models.fields.uuids import UUIDField
from typing_extensions import override

from morango_celery import clock
from morango_celery.db.prepared import Statement, anything, concrete_fields, kept, number, updating
from morango_celery.errors import FatalError, InvalidMessageError, RunFailedError
from morango_celery.printable import printable


class Run(models.Model):
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

    profile = models.CharField(max_length=40)
    filter = models.TextField(null=True, blank=True)  # noqa: DJ001  (the empty filter is one)
    """Partition prefixes, one a line; NULL for the whole profile."""
    skip_erroring = models.BooleanField(default=False)
    retry_errors = models.BooleanField(default=False)
    """Only the records that were in error when it started."""
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

    @property
    def sharing(self) -> str:
        """Text such as "waits for the end of run 3" or "its records are deserialized by run 3"; or empty."""
        if self.coalesced_into_id is not None:
            verb = "were" if self.is_finished else "are"
            return f"its records {verb} deserialized by run {self.coalesced_into_id}"
        return "" if self.blocked_by_id is None else f"waits for the end of run {self.blocked_by_id}"

    @property
    def sync_filter(self) -> Filter | None:
        return None if self.filter is None else Filter(self.filter)

    @property
    def done(self) -> int:
        """Number of records with an outcome."""
        return sum(getattr(self, name) for name in self.COUNTS)

    @property
    def is_finished(self) -> bool:
        return not self.MOVES[self.State(self.state)]

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
        if self.is_finished:
            self._let_others_go_on()

    def change_state(self, state: State, error: str = "") -> None:
        """Change the state of a row that this transaction has locked, and the caller saves.

        :raises FatalError: the ledger knows no such move
        """
        if state not in self.MOVES[self.State(self.state)]:
            raise FatalError(f"Run {self.pk} is {self.state}; it can't become {state.value}.")
        self.state = state
        self.error = error
        if state is self.State.RUNNING:
            self.started_at = clock.now()
        elif self.is_finished:
            self.finished_at = clock.now()
            self.blocked_by = None

    def _let_others_go_on(self) -> None:
        """Complete the runs that were coalesced into this one if it is completed, else release them; release
        those that it blocked."""
        if self.coalesced_runs:
            taken_in = Run.objects.filter(coalesced_into=self, state=self.State.PENDING)
            if self.state == self.State.COMPLETED:
                own = Run.objects.filter(pk=self.pk)
                started_at, now = Subquery(own.values("started_at")), clock.now()
                taken_in.update(
                    state=self.state, started_at=started_at, finished_at=now, last_activity_at=now
                )
            else:
                released = taken_in.update(coalesced_into=None, sent_at=None, overdue_at=None)
                self.has_released |= released > 0
        self.has_released |= _releasing(self.coalesced_runs > 0).execute(self.pk, self.pk) > 0

    def save_active(self) -> None:
        """Save the row, with now as the time of the last activity."""
        self.last_activity_at = clock.now()
        self._save_loaded()
        if self.is_finished and self.open_batches:
            Batch.forget_ids(Batch.objects.filter(run=self))

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


class Batch(models.Model):
    """The records of a run's stage that one task deserializes."""

    class State(models.TextChoices):
        OPEN = "open"
        DONE = "done"
        SPLIT = "split"
        """Its records were handed out again, in smaller batches."""

    EXCLUSIVE = 0
    """`split_from` of a stage's batches that hold records of exclusive models, and of their parts."""

    MOVES = {
        State.OPEN: {State.DONE, State.SPLIT},
        State.DONE: set[State](),
        State.SPLIT: set[State](),
    }

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="batches")
    stage = models.IntegerField()
    number = models.IntegerField()
    """Counts from 1 within the stage."""
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    size = models.IntegerField()
    """Number of records handed out."""
    ids_sha256 = models.CharField(max_length=64)
    """SHA-256 of `ids_json`. A message carries it in place of the ids, to show that it is this batch's."""
    ids_json = models.TextField(blank=True)
    """The ids as a JSON list, until the transaction that closes the batch or ends the run empties it."""
    retryable_ids = models.TextField(blank=True)
    """Ids, as a JSON list, of failed records that another pass may save."""
    code_edits = models.TextField(blank=True)
    """Digests, as a JSON list, of app rows that models' code left dirty before their records came."""
    pass_number = models.IntegerField(default=1)
    attempts = models.IntegerField(default=0)
    """Number of workers that began to execute the batch and have not ended that."""
    attempted_at = models.DateTimeField(null=True)
    """Time at which the last of them began."""
    attempted_by = models.CharField(max_length=64, blank=True)
    """The id of the message that it began with; empty once that attempt is known to be over."""
    suspect = models.BooleanField(default=False)
    """True if one more failed attempt is enough to split it."""
    split_from = models.IntegerField(null=True)
    """The number of the planned batch that was split and that it is a part of; or `EXCLUSIVE`."""
    offset = models.IntegerField(default=0)
    """Number of records that come before its own in the planned batch, or in all exclusive ones."""
    last_error = models.TextField(blank=True)
    """Reason for the end of the last attempt, if the worker survived it."""

    saved = models.IntegerField(default=0)
    deleted = models.IntegerField(default=0)
    propagated = models.IntegerField(default=0)
    conflicted = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)

    sent_at = models.DateTimeField(null=True)
    """Time of the last message for the batch; NULL if none was sent, or no broker took it."""
    overdue_at = models.DateTimeField(null=True)
    """Time from which recovery sends it again, unless somebody holds its row; NULL for at once."""
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "batches"
        constraints = [
            models.UniqueConstraint(fields=["run", "stage", "number"], name="mcelery_batch_number"),
        ]
        indexes = [
            models.Index(fields=["run"], condition=models.Q(state="open"), name="mcelery_batch_open"),
            models.Index(
                fields=["run"],
                condition=models.Q(state="open") & ~models.Q(ids_json=""),
                name="mcelery_batch_with_ids",
            ),
        ]

    @override
    def __str__(self) -> str:
        return f"batch {self.stage}/{self.number} of run {self.run_id}"

    @classmethod
    def of(cls, run: Run, number: int, store_ids: Sequence[str], **columns: Any) -> Batch:
        """Return an unsaved batch of the run's current stage and pass."""
        return cls(
            run=run,
            stage=run.stage,
            number=number,
            pass_number=run.pass_number,
            size=len(store_ids),
            ids_json=json.dumps(list(store_ids)),
            ids_sha256=hash_of_ids(store_ids),
            **columns,
        )

    @classmethod
    def has_to_wait(cls) -> Exists:
        """Return the condition that an earlier part of the planned batch, or exclusive batch, is open.

        Such batches are executed one after another: the records of a batch may depend on their order, and
        two batches of exclusive models must not be executed at the same time.
        """
        same = {name: OuterRef(name) for name in ("run", "stage", "split_from")}
        earlier = cls.objects.filter(**same, offset__lt=OuterRef("offset"), state=cls.State.OPEN)
        return Exists(earlier)

    def open_parts(self) -> models.QuerySet[Batch]:
        """Return the open parts of the planned batch, or the open exclusive batches, in their order."""
        planned = self.number if self.split_from is None else self.split_from
        parts = Batch.objects.filter(run=self.run_id, stage=self.stage, split_from=planned)
        return parts.filter(state=self.State.OPEN).order_by("offset")

    @classmethod
    def forget_ids(cls, batches: models.QuerySet[Batch]) -> None:
        """Empty the ids of open batches that nobody is going to execute any more.

        A batch in execution is skipped, since its row is held: closing it empties its ids, and if it isn't
        closed, the next message or recovery does.
        """
        left = batches.filter(state=cls.State.OPEN).exclude(ids_json="")
        free = left.select_for_update(skip_locked=True).values("pk")
        cls.objects.filter(pk__in=free).update(ids_json="")

    @classmethod
    def known_code_edits(cls, run_id: int, digests: set[str]) -> set[str]:
        """Return the digests of app rows, among those given, that batches of the run have noted.

        Cost: one query, read row by row.
        """
        noted = cls.objects.filter(run=run_id).exclude(code_edits="").values_list("code_edits", flat=True)
        return {digest for text in noted.iterator() for digest in json.loads(text) if digest in digests}

    @property
    def is_open(self) -> bool:
        return bool(self.MOVES[self.State(self.state)])

    def close(self, state: State, **columns: Any) -> None:
        """Close a batch for good; this transaction has locked its row.

        :param columns: more to write
        :raises FatalError: the ledger knows no such move
        """
        if state not in self.MOVES[self.State(self.state)]:
            raise FatalError(f"The {self} is {self.state}; it can't become {state.value}.")
        self.state = state
        _closing(state.value, tuple(columns)).execute(self.pk, *columns.values())

    @property
    def store_ids(self) -> list[str]:
        """Ids handed out; empty once the batch is done.

        :raises FatalError: the ledger's ids are not those that were handed out
        """
        if not self.ids_json:
            return []
        if _sha256(self.ids_json) != self.ids_sha256:
            raise FatalError(
                f"The ids that the ledger has of the {self} are not those that were handed out: its row was "
                "damaged, or changed by others."
            )
        ids: list[str] = json.loads(self.ids_json)
        return ids

    @property
    def description(self) -> str:
        """Text about an open batch that was read with its run: "facilityuser x 500, run 12, batch 3/40"."""
        run = self.run
        return f"{run.stage_models} x {self.size}, run {run.pk}, batch {self.number}/{run.stage_batches}"

    @property
    def ids_to_retry(self) -> list[str]:
        """Ids of failed records that another pass may save."""
        ids: list[str] = json.loads(self.retryable_ids or "[]")
        return ids

    def require(self, ids_sha256: str) -> None:
        """Raise an error unless a message's hash is that of this batch's ids.

        :raises InvalidMessageError: the ids that were handed out have another hash
        """
        if self.ids_sha256 != ids_sha256:
            raise InvalidMessageError(
                f"The message's ids are not those of {self}. It was not carried out; "
                "recover_runs sends the batch again as the ledger has it."
            )


@kept
def _closing(state: str, names: tuple[str, ...]) -> Statement:
    columns = {name: anything(place) for place, name in enumerate(names, start=1)}
    columns |= {"state": state, "finished_at": clock.now(), "ids_json": "", "attempted_by": ""}
    return updating(Batch.objects.filter(pk=number(0)), columns)


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


def hash_of_ids(store_ids: Sequence[Any]) -> str:
    """Return the SHA-256 by which a batch's message names its ids, as 64 hex digits."""
    return _sha256(json.dumps(list(store_ids)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def added(**counts: int) -> dict[str, Any]:
    """Return keyword arguments for ``update()`` that add to counters."""
    return {name: F(name) + count for name, count in counts.items()}
