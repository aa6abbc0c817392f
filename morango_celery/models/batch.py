"""Batch: the records of a run's stage that one task deserializes, and their result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.models import Exists, OuterRef
from typing_extensions import override

from morango_celery import clock
from morango_celery.db.prepared import Statement, anything, kept, number, updating
from morango_celery.errors import FatalError, InvalidMessageError
from morango_celery.models.formed import Formed
from morango_celery.models.run import Run


class Batches(models.QuerySet["Batch"]):
    """Query of batches."""

    def forget_ids(self) -> None:
        """Empty the ids of open batches that nobody is going to execute any more.

        A batch in execution is skipped, since its row is held: closing it empties its ids, and if it isn't
        closed, the next message or recovery does.
        """
        left = self.filter(Batch.known(), state=Batch.State.OPEN).exclude(ids_json="")
        free = left.select_for_update(skip_locked=True).values("pk")
        Batch.objects.filter(pk__in=free).update(ids_json="")


class Batch(Formed):
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
    stage_models = models.TextField(blank=True)
    """Names of the models of its stage, for the reader."""
    pass_number = models.IntegerField(default=1)
    attempts = models.IntegerField(default=0)
    """Number of workers that began to execute the batch and have not ended that."""
    attempted_at = models.DateTimeField(null=True)
    """Time at which the last of them began."""
    attempted_by = models.CharField(max_length=64, blank=True)
    """The id of the message that it began with; empty once that attempt is known to be over."""
    worker = models.CharField(max_length=300, blank=True)
    """The worker that began the last attempt, and the id of its process, such as ``celery@host 1234``."""
    earlier_attempts = models.TextField(blank=True)
    """Attempts that came to no result, one a line, as `runs.history` writes and reads them."""
    suspect = models.BooleanField(default=False)
    """True if one more failed attempt is enough to split it."""
    split_from = models.IntegerField(null=True)
    """The number of the planned batch that was split and that it is a part of; or `EXCLUSIVE`."""
    offset = models.IntegerField(default=0)
    """Number of records that come before its own in the planned batch, or in all exclusive ones."""
    last_error = models.TextField(blank=True)
    """Reason why the last unsuccessful attempt at it ended; empty if there was none."""

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

    objects = Batches.as_manager()

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
        return f"batch {self.label} of run {self.run_id}"

    @property
    def label(self) -> str:
        """Stage and number, such as "2/17", as lines of the log have them."""
        return f"{self.stage}/{self.number}"

    @classmethod
    def of(cls, run: Run, number: int, store_ids: Sequence[str], **columns: Any) -> Batch:
        """Return an unsaved batch of the run's current stage and pass, and of its form."""
        return cls(
            run=run,
            form=run.form,
            stage=run.stage,
            number=number,
            pass_number=run.pass_number,
            stage_models=run.stage_models,
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

    @classmethod
    def may_begin(cls) -> models.Q:
        """Return the condition that a batch is no part of another, or needn't wait for an earlier part.

        So the parts alone are compared with others. A run has thousands of batches, and few parts.
        """
        return models.Q(split_from=None) | models.Q(~cls.has_to_wait())

    def open_parts(self) -> models.QuerySet[Batch]:
        """Return the open parts of the planned batch, or the open exclusive batches, in their order."""
        planned = self.number if self.split_from is None else self.split_from
        parts = Batch.objects.filter(run=self.run_id, stage=self.stage, split_from=planned)
        return parts.filter(state=self.State.OPEN).order_by("offset")

    @classmethod
    def known_code_edits(cls, run_id: int, digests: set[str]) -> set[str]:
        """Return the digests of app rows, among those given, that batches of the run have noted.

        Cost: one query, read row by row.
        """
        noted = cls.objects.filter(run=run_id).exclude(code_edits="").values_list("code_edits", flat=True)
        return {digest for text in noted.iterator() for digest in json.loads(text) if digest in digests}

    @property
    def is_open(self) -> bool:
        return self.state == self.State.OPEN

    def close(self, state: State, **columns: Any) -> None:
        """Close a batch for good; this transaction has locked its row.

        :param columns: more to write
        :raises FatalError: the ledger knows no such move
        """
        if not self.is_known or state not in self.MOVES[self.State(self.state)]:
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


def hash_of_ids(store_ids: Sequence[Any]) -> str:
    """Return the SHA-256 by which a batch's message names its ids, as 64 hex digits."""
    return _sha256(json.dumps(list(store_ids)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
