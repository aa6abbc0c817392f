"""History of a batch: its attempts that came to no result, one after another, for readers.

Each is written into the batch's row by the statement that notes its end anyway, as a line of text. Attempts
that succeed at once, as nearly all do, have none.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from django.db.models import F, TextField, Value
from django.db.models.functions import Cast, Concat, Right

from morango_celery import clock
from morango_celery.models import Batch
from morango_celery.printable import printable

MAX_CHARACTERS = 2000
"""Length of the text that is kept of a batch, the newest attempts."""
MAX_REASON_CHARACTERS = 200

STOPPED = "its worker was stopped"


@dataclass(frozen=True)
class PastAttempt:
    """An attempt that came to no result."""

    begun_at: datetime.datetime
    noted_at: datetime.datetime
    """Time at which its end was noted: by its own worker, or later by another one."""
    worker: str
    reason: str


def ended(reason: Any) -> dict[str, Any]:
    """Return the columns to write into a batch as the end of its last attempt is noted.

    :param reason: text, or an expression for one
    """
    if isinstance(reason, str):
        first, _, _ = printable(reason, MAX_REASON_CHARACTERS).partition("\\n")
        reason = Value(first)  # the database may quote values of records in further lines
    # All of one type, since Django 5 asks for that before it joins them for PostgreSQL
    fields = (F("attempted_at"), clock.now(), F("worker"), reason)
    tab, end = Value("\t", TextField()), Value("\n", TextField())
    line = Concat(*(part for field in fields for part in (Cast(field, TextField()), tab)), end)
    whole = Concat(F("earlier_attempts"), line)
    return {"attempted_by": "", "earlier_attempts": Right(whole, MAX_CHARACTERS)}


def past_attempts(batch: Batch) -> list[PastAttempt]:
    """Return the attempts that came to no result, as far as they are kept, the earliest first."""
    found = []
    for line in batch.earlier_attempts.split("\n"):
        begun_at, noted_at, worker, reason, *_ = (*line.split("\t"), "", "", "", "")
        try:
            found.append(PastAttempt(_time(begun_at), _time(noted_at), worker, reason))
        except ValueError:  # the rest of a line whose beginning was dropped
            continue
    return found


def _time(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
