"""Overdue work: by when whoever has a run or a batch is to be heard of again, and who else takes it up then.

Each step of the way says in the ledger when it counts as lost: a message that was sent, an attempt that was
begun, a retry that is to come. Recovery takes up what is overdue and held by nobody.
- Who executes a batch holds its row.
- Who opens a run's next stage, or serializes before or after it, holds the run's advisory lock.
Neither lock outlasts a transaction, for these are all that a pooler keeps together. Between two of them there
are moments in which a batch or a run that is in good hands is held by nobody; they are short.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import BooleanField, F, Func, IntegerField, Q, QuerySet, TextField, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from morango_celery import clock
from morango_celery.conf import settings
from morango_celery.db.prepared import Columns, Statement, kept, number, selecting, text, updating
from morango_celery.deserialization.sql import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.runs.limits import Limits, current_limits, limited, within
from morango_celery.upstream import uses_postgresql

LOST_AFTER_SECONDS = 15.0
"""After how long work that was begun, and that nobody holds, counts as lost. Together with the time between
two looks, a minute by default, it is what the loss of a worker costs a run at most."""

MOMENT_SECONDS = 1.0
"""How long work that is in good hands is held by nobody, at most and on a busy machine."""

OPENING = 0x6D63
"""The first key of runs' advisory locks; the second is the run's id."""

_LARGEST_KEY = 2**31 - 1


def lost_after_seconds() -> float:
    """Return `LOST_AFTER_SECONDS`, or less if messages are sent again sooner than usual."""
    return min(LOST_AFTER_SECONDS, settings.STALLED_AFTER_SECONDS / 3)


def overdue() -> Q:
    """Return the condition for rows that count as lost, unless somebody holds them."""
    return Q(overdue_at=None) | Q(overdue_at__lt=clock.now())


def when_begun() -> dict[str, Any]:
    """Return what to write into a row with which somebody begins: to send it, or what it is sent for."""
    return {"overdue_at": clock.now(lost_after_seconds())}


def note_sent(rows: QuerySet[Any]) -> None:
    """Note that messages for these rows were sent.

    Rows that somebody holds are not waited for, and left as they are.
    Cost: one statement.
    """
    _note(rows, **_sent(settings.STALLED_AFTER_SECONDS))


def note_start_sent(run: Run) -> None:
    """Note likewise that a message for a run was sent, unless somebody has begun with it since it was read.

    Cost: one statement; on PostgreSQL it is a transaction of its own, for a request waits for this.
    """
    statement = _noting_start(settings.STALLED_AFTER_SECONDS)
    values = run.pk, str(run.state), run.stage, run.attempts
    if uses_postgresql():
        statement.execute(*values)
        return
    with transaction.atomic():
        take_write_lock()
        statement.execute(*values)


@kept
def _noting_start(stalled_after_seconds: float) -> Statement:
    runs = Run.objects.filter(pk=number(0), state=text(1), stage=number(2), attempts=number(3))
    with transaction.atomic():  # as Django asks for where a row is locked
        return updating(_free(runs), _sent(stalled_after_seconds))


def note_unsent(rows: QuerySet[Any]) -> None:
    """Note that there is no message for these rows, likewise: the next recovery sends them."""
    _note(rows, sent_at=None, overdue_at=None)


def note_retry(rows: QuerySet[Any], seconds: float) -> None:
    """Note that a message which is due after some seconds tries again what just failed.

    If the database isn't there to hear it, recovery may send another one sooner.
    """
    with contextlib.suppress(DatabaseError, InterfaceError):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        _note(rows, overdue_at=clock.now(seconds + lost_after_seconds()))


def _note(rows: QuerySet[Any], **columns: Any) -> None:
    with transaction.atomic():
        take_write_lock()
        _free(rows).update(**columns)


def _free(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return those of the rows that nobody holds, locked as the update that follows does."""
    # Not as who executes a batch holds it: whoever gets its message now isn't to take us for that
    free = rows.order_by().select_for_update(skip_locked=True, no_key=True).values("pk")
    found: QuerySet[Any] = rows.model.objects.filter(pk__in=free)
    return found


def _sent(stalled_after_seconds: float) -> dict[str, Any]:
    return {"sent_at": clock.now(), "overdue_at": clock.now(stalled_after_seconds)}


def untouched(batches: Sequence[Batch]) -> QuerySet[Batch]:
    """Return those of which no attempt has been begun since they were read."""
    unchanged = (Q(pk=b.pk, attempted_at=b.attempted_at, attempted_by=b.attempted_by) for b in batches)
    return Batch.objects.filter(reduce(or_, unchanged))


def not_executed(batch_id: int) -> Any:
    """Return the condition on its id that nobody executes a batch.

    It waits for nobody; and in the same statement the row can be changed, not locked in a stronger way.
    """
    if not uses_postgresql():
        return Q()
    table = connection.ops.quote_name(Batch._meta.db_table)
    # Of all that lock the row, only who executes the batch is in the way of this
    unheld = f"SELECT id FROM {table} WHERE id = %s FOR KEY SHARE SKIP LOCKED"  # noqa: S608  (our own name)
    return Q(pk__in=RawSQL(unheld, [batch_id]))  # noqa: S611  (the id is a parameter)


def free(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return those of the rows that nobody holds; to be read in a transaction, which ends soon."""
    return rows.select_for_update(of=("self",), skip_locked=True)


def hold(rows: QuerySet[Any]) -> bool:
    """Lock rows until the end of the transaction, and limit that, as its first query. Returns False if there
    are none.

    :raises OperationalError: somebody holds them for too long; it may be a session of our own that was lost
    """
    locked = rows.order_by().select_for_update(of=("self",)).values_list("pk").annotate(**limited())
    return bool(list(locked))


def hold_opening(run_id: int) -> None:
    """Hold a run's advisory lock until the end of the transaction, and limit that, as its first query."""
    if uses_postgresql():
        _holding(current_limits()).row(run_id)


@kept
def _holding(limits: Limits | None) -> Statement:
    with within(limits):
        return selecting(Run.objects.filter(pk=number(0)).values_list("pk").annotate(**opening()))


def opening() -> dict[str, Any]:
    """Return annotations of a run's query that do as `hold_opening`."""
    if not uses_postgresql():
        return {}
    return {
        **limited(),
        "opening": Func(*_keys(), function="pg_advisory_xact_lock", output_field=TextField()),
    }


def read_run(run_id: int) -> Run:
    """Return a run as the ledger has it.

    :raises Run.DoesNotExist: it was deleted
    """
    row = _reading().row(run_id)
    if row is None:
        raise Run.DoesNotExist
    run: Run = RUN.instance(row)
    return run


@kept
def _reading() -> Statement:
    return selecting(Run.objects.filter(pk=number(0)).values_list(*RUN.names))


def lock_opened(run_id: int) -> Run:
    """Return a run, locked until the end of the transaction as `hold_opening` and for changes.

    :raises Run.DoesNotExist: it was deleted
    """
    row = _locking_opened(current_limits()).row(run_id)
    if row is None:
        raise Run.DoesNotExist
    run: Run = RUN.instance(row[: len(RUN.names)])
    return run


@kept
def _locking_opened(limits: Limits | None) -> Statement:
    with within(limits):
        locked = Run.objects.select_for_update().filter(pk=number(0))
        return selecting(locked.values_list(*RUN.names).annotate(**opening()))


RUN = Columns(Run)
"""All of a run."""


def nobody_opens() -> Q:
    """Return the condition that nobody holds a run's advisory lock; this transaction does then."""
    if not uses_postgresql():
        return Q()
    return Q(Func(*_keys(), function="pg_try_advisory_xact_lock", output_field=BooleanField()))


def _keys() -> tuple[Any, Any]:
    return Value(OPENING), Cast(F("pk").bitand(_LARGEST_KEY), IntegerField())
