"""Beginnings of attempts at batches: each is counted in one statement, which waits for nobody."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, When

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.deserialization.locks import commit_lazily, take_write_lock
from morango_celery.models import Batch
from morango_celery.runs import pausing
from morango_celery.runs.lost_attempts import just_begun, none_is_lost, note_lost_attempt
from morango_celery.runs.message import Message
from morango_celery.runs.overdue import not_executed, when_begun


def begin_attempt(batch_id: int, ids_sha256: str, message: Message) -> bool | None:
    """Count an attempt unless a pause holds the run; note one that was lost before.

    :returns: None if a pause holds the run
    Cost: one statement if an attempt can be begun.
    """
    if _begin(batch_id, ids_sha256, message):
        return True
    is_held = pausing.hold_batch(batch_id)
    if is_held:
        return None
    others_are = is_held is not None
    if others_are and _begin(batch_id, ids_sha256, message, in_spite_of_pauses=True):
        return True
    return note_lost_attempt(batch_id, message) and _begin(
        batch_id, ids_sha256, message, in_spite_of_pauses=others_are
    )


def _begin(batch_id: int, ids_sha256: str, message: Message, *, in_spite_of_pauses: bool = False) -> bool:
    """Count an attempt, if the batch is open, has one left, nobody executes it, and nothing is paused.

    If another message's attempt was begun a moment ago, this attempt takes the place of that one, and doesn't
    count as one more. An attempt that was lost has to be noted first.

    :param in_spite_of_pauses: whether pauses may be in force, of other runs
    """
    split_early = Q(suspect=True, size__gt=1)
    left = Q(split_early, attempts=0) | Q(~split_early, attempts__lt=settings.MAX_ATTEMPTS)
    others = just_begun(message.id)
    ready = Batch.objects.filter(
        Q(left, none_is_lost()) | others,
        not_executed(batch_id),
        Batch.known(),
        Batch.may_begin(),
        pk=batch_id,
        state=Batch.State.OPEN,
        ids_sha256=ids_sha256,
    )
    if not in_spite_of_pauses:
        ready = ready.filter(pausing.nothing_is_paused())
    with transaction.atomic():
        take_write_lock()
        commit_lazily()
        begun = ready.update(
            attempts=Case(When(others, then=F("attempts")), default=F("attempts") + 1),
            attempted_at=Case(When(others, then=F("attempted_at")), default=clock.now()),
            attempted_by=message.id,
            worker=message.worker,
            **when_begun(),
        )
    return begun == 1


def has_attempts_left(batch: Batch) -> bool:
    """Return True if another attempt at the batch may be counted."""
    return batch.attempts < (1 if batch.suspect and batch.size > 1 else settings.MAX_ATTEMPTS)


def attempt_of(batch_id: int, message_id: str) -> QuerySet[Batch]:
    """Return a query for the open batch, empty if another message's attempt was begun since this one's."""
    return Batch.objects.filter(pk=batch_id, state=Batch.State.OPEN, attempted_by=message_id, attempts__gt=0)
