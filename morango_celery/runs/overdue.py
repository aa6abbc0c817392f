"""Overdue work: runs and batches that no message or worker was heard of for in time.

Each step notes in the ledger when it counts as lost: a message that was sent, an attempt that was begun, a
retry that is to come. Recovery sends overdue work again that nobody holds.
- A worker that executes a batch holds its row.
- A worker that opens a run's next stage, or serializes before or after it, holds the run's advisory lock.
Neither lock outlasts a transaction, since a pooler keeps a session for no longer. Between two transactions
there are short moments in which nobody holds a batch or a run that is in good hands.
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
from morango_celery.db.dialect import dialect
from morango_celery.db.prepared import Columns, Statement, kept, number, selecting, text, updating
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.models import Batch, Run
from morango_celery.runs.limits import Limits, current_limits, limited, within

LOST_AFTER_SECONDS = 15.0
"""Time after which begun work that nobody holds counts as lost. A lost worker delays a run by this and
the time between two looks, a minute by default, at most."""

MOMENT_SECONDS = 1.0
"""Longest time in which nobody holds work that is in good hands, on a busy machine."""

OPENING = 0x6D63
"""First key of runs' advisory locks; the second is the run's id."""

_LARGEST_KEY = 2**31 - 1


def lost_after_seconds() -> float:
    """Return `LOST_AFTER_SECONDS`, or less if messages are sent again sooner than usual."""
    return min(LOST_AFTER_SECONDS, settings.STALLED_AFTER_SECONDS / 3)


def overdue() -> Q:
    """Return the condition for rows that count as lost, unless somebody holds them."""
    return Q(overdue_at=None) | Q(overdue_at__lt=clock.now())


def when_begun() -> dict[str, Any]:
    """Return the columns to write into a row as somebody begins to send, execute or open it."""
    return {"overdue_at": clock.now(lost_after_seconds())}


def note_sent(rows: QuerySet[Any]) -> None:
    """Note that messages for these rows were sent.

    Rows that somebody holds are not waited for, and left as they are.
    Cost: one statement.
    """
    _note(rows, **_sent(settings.STALLED_AFTER_SECONDS))


def note_start_sent(run: Run) -> None:
    """Note that a message for a run was sent, unless somebody has begun with the run since it was read.

    A row that somebody holds is not waited for, and left as it is.
    Cost: one statement; on PostgreSQL it is a transaction of its own, because a request waits for this.
    """
    statement = _noting_start(settings.STALLED_AFTER_SECONDS)
    values = run.pk, str(run.state), run.stage, run.attempts
    if not dialect().has_one_writer:
        statement.execute(*values)
        return
    with transaction.atomic():
        take_write_lock()
        statement.execute(*values)


@kept
def _noting_start(stalled_after_seconds: float) -> Statement:
    runs = Run.objects.filter(pk=number(0), state=text(1), stage=number(2), attempts=number(3))
    with transaction.atomic():  # Django requires one where a row is locked
        return updating(_free(runs), _sent(stalled_after_seconds))


def note_unsent(rows: QuerySet[Any]) -> None:
    """Note that these rows have no message, except for those that somebody holds; recovery sends them."""
    _note(rows, sent_at=None, overdue_at=None)


def note_retry(rows: QuerySet[Any], seconds: float) -> None:
    """Note that a message will retry these rows in so many seconds.

    If the database isn't there to note it, recovery may send another message sooner.
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
    """Return those of the rows that nobody holds, locked by the mode of the update that follows."""
    # Weaker than the lock of a batch's execution, so that no worker takes it for one
    free = rows.order_by().select_for_update(skip_locked=True, no_key=True).values("pk")
    found: QuerySet[Any] = rows.model.objects.filter(pk__in=free)
    return found


def _sent(stalled_after_seconds: float) -> dict[str, Any]:
    return {"sent_at": clock.now(), "overdue_at": clock.now(stalled_after_seconds)}


def untouched(batches: Sequence[Batch]) -> QuerySet[Batch]:
    """Return a query for those batches of which no attempt was begun since they were read."""
    unchanged = (Q(pk=b.pk, attempted_at=b.attempted_at, attempted_by=b.attempted_by) for b in batches)
    return Batch.objects.filter(reduce(or_, unchanged))


def not_executed(batch_id: int) -> Any:
    """Return a condition on the id of a batch, which holds if nobody executes the batch.

    It waits for nobody. The same statement can change the row, but not lock it in a stronger mode.
    """
    if dialect().has_one_writer:
        return Q()
    table = connection.ops.quote_name(Batch._meta.db_table)
    # Of all locks of the row, only that of the batch's execution conflicts with this one
    unheld = f"SELECT id FROM {table} WHERE id = %s FOR KEY SHARE SKIP LOCKED"  # noqa: S608  (our own name)
    return Q(pk__in=RawSQL(unheld, [batch_id]))  # noqa: S611  (the id is a parameter)


def lock_free(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return a query that locks the rows which nobody holds, and reads them; keep its transaction short."""
    return rows.select_for_update(of=("self",), skip_locked=True)


def hold(rows: QuerySet[Any]) -> bool:
    """Lock rows until the end of the transaction, and limit the transaction; it has to be its first query.

    :returns: False if there are no such rows
    :raises OperationalError: somebody holds them for too long, perhaps a lost session of this process
    """
    locked = rows.order_by().select_for_update(of=("self",)).values_list("pk").annotate(**limited())
    return bool(list(locked))


def hold_opening(run_id: int) -> None:
    """Take a run's advisory lock until the end of the transaction, and limit the transaction.

    It has to be the transaction's first query.
    """
    if dialect().has_advisory_locks:
        _holding(current_limits()).row(run_id)


@kept
def _holding(limits: Limits | None) -> Statement:
    with within(limits):
        return selecting(Run.objects.filter(pk=number(0)).values_list("pk").annotate(**opening()))


def opening() -> dict[str, Any]:
    """Return annotations for a query of a run that have the effect of `hold_opening`."""
    if not dialect().has_advisory_locks:
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
    """Return a run, with its row and its advisory lock held until the end of the transaction.

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
"""All columns of a run."""


def takes_opening_lock() -> Q:
    """Return a condition that takes a run's advisory lock until the transaction ends; true if it got it."""
    if not dialect().has_advisory_locks:
        return Q()
    return Q(Func(*_keys(), function="pg_try_advisory_xact_lock", output_field=BooleanField()))


def _keys() -> tuple[Any, Any]:
    return Value(OPENING), Cast(F("pk").bitand(_LARGEST_KEY), IntegerField())
