"""Shadow mode: a share of the syncs that Morango deserializes is compared with ours afterwards, by workers.

A request only notes the comparison; recovery, which every worker asks for once a minute, sends it when the
sync's deserializing stage is over. One is made at a time, and each once: a sync must not wait for several.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum
from morango.constants import transfer_stages, transfer_statuses
from morango.models.certificates import Filter
from morango.models.core import TransferSession

from morango_celery import clock
from morango_celery.comparison.compare import compare
from morango_celery.comparison.report import Request
from morango_celery.conf import settings
from morango_celery.errors import ComparisonError, SoftTimeLimitReached
from morango_celery.models import Comparison
from morango_celery.printable import make_printable, printable_lines

logger = logging.getLogger(__name__)

TIME_LIMIT_SECONDS = 60.0
"""Longest time for which a comparison may keep syncs of its partitions waiting."""

MAX_RECORDS = 2000
"""Largest number of a sync's records that are compared, so that it takes seconds. Targets come along."""

LOST_AFTER_SECONDS = 5 * TIME_LIMIT_SECONDS
"""Time after which a comparison that was begun, and has not ended, has lost its worker."""

NOT_COMPARED = "could not be compared"

WAITS_SECONDS = 60 * 60
"""Longest time that a comparison waits for the end of the deserializing stage, and for a worker."""


def is_chosen(transfer_session_id: str, share: float) -> bool:
    """Return True for a share of all transfer sessions; of one session always the same.

    :param share: from 0 to 1
    """
    number = int(hashlib.sha256(transfer_session_id.encode()).hexdigest()[:8], 16)
    return number < share * 2**32


def note(transfer_session_id: str, profile: str, sync_filter: Filter) -> None:
    """Note that a sync is to be compared once it is deserialized, if it is one of the chosen share.

    Cost: nothing if it isn't chosen; otherwise two statements.
    Twice: safe; a transfer session has one comparison.
    """
    if is_chosen(transfer_session_id, settings.COMPARE_SHARE):
        Comparison.objects.get_or_create(
            transfer_session_id=transfer_session_id,
            defaults={"profile": profile, "filter": str(sync_filter)},
        )


def next_due(*, again: bool = False) -> Comparison | None:
    """Return the comparison to send a message for: the oldest whose sync is deserialized, if none goes on.

    Comparisons that can't be made any more are ended.

    :param again: True to send one again that was sent just now
    Cost: one statement if there are none; otherwise five.
    Twice, and at the same time: safe; each is made once, however often it is sent.
    """
    unfinished = Comparison.objects.filter(Comparison.known(), state__in=Comparison.UNFINISHED)
    if not unfinished.exists():
        return None
    _end_hopeless()
    just_sent = Q(state=Comparison.State.PENDING, sent_at__gt=clock.now(-settings.STALLED_AFTER_SECONDS))
    if unfinished.filter(Q(state=Comparison.State.RUNNING) | (Q(pk=None) if again else just_sent)).exists():
        return None
    over = Q(transfer_stage=transfer_stages.CLEANUP) | Q(
        transfer_stage=transfer_stages.DESERIALIZING, transfer_stage_status=transfer_statuses.COMPLETED
    )
    return unfinished.filter(Exists(_sessions().filter(over))).order_by("pk").first()


def note_sent(comparison: Comparison) -> None:
    Comparison.objects.filter(pk=comparison.pk).update(sent_at=clock.now())


def _end_hopeless() -> None:
    """End comparisons that lost their worker, whose sync failed, or that have waited for too long."""
    known = Comparison.objects.filter(Comparison.known())
    running = known.filter(state=Comparison.State.RUNNING)
    _fail(
        running.filter(started_at__lt=clock.now(-LOST_AFTER_SECONDS)),
        "Its worker was lost: it was killed, crashed, or ran out of memory. Nothing of it was kept.",
    )
    pending = known.filter(state=Comparison.State.PENDING)
    errored = _sessions().filter(
        transfer_stage=transfer_stages.DESERIALIZING, transfer_stage_status=transfer_statuses.ERRORED
    )
    _fail(
        pending.filter(Exists(errored) | Q(created_at__lt=clock.now(-WAITS_SECONDS))),
        "The sync was not deserialized by Morango, or no worker had time for the comparison within an hour.",
    )


def _sessions() -> QuerySet[Any]:
    sessions: QuerySet[Any] = TransferSession.objects.filter(pk=OuterRef("transfer_session_id"))
    return sessions


def _fail(comparisons: QuerySet[Comparison], error: str) -> None:
    comparisons.update(state=Comparison.State.FAILED, error=error, finished_at=clock.now())


def carry_out(comparison_id: int) -> str:
    """Compare the records of a pending comparison's sync, in a transaction that is rolled back.

    :returns: the result, as a text for monitors
    Cost: that of `compare`, for `MAX_RECORDS` and `TIME_LIMIT_SECONDS` at most; and three statements.
    Twice: safe; a comparison is made once, even if its worker is lost.
    """
    known = Comparison.objects.filter(Comparison.known(), pk=comparison_id)
    pending = known.filter(state=Comparison.State.PENDING)
    if not pending.update(state=Comparison.State.RUNNING, started_at=clock.now()):
        return "nothing to compare"
    comparison = Comparison.objects.get(pk=comparison_id)
    running = Comparison.objects.filter(pk=comparison_id, state=Comparison.State.RUNNING)
    try:
        report = compare(
            Request(
                profile=comparison.profile,
                sync_filter=comparison.sync_filter,
                records=MAX_RECORDS,
                replay=True,
                transfer_session_id=comparison.transfer_session_id,
                seconds=TIME_LIMIT_SECONDS,
            )
        )
    except ComparisonError as error:
        _fail(running, printable_lines(error))
        return NOT_COMPARED
    except (Exception, SoftTimeLimitReached) as error:  # any error ends it; nobody waits for a comparison
        make_printable(error)
        logger.exception("Comparison %s could not be made.", comparison.pk)
        _fail(running, type(error).__name__)  # without its text, which may quote a record
        return NOT_COMPARED
    running.update(
        state=Comparison.State.COMPLETED,
        records=report.records,
        differences=report.differences,
        documented=sum(report.documented.values()),
        report=report.as_json(),
        finished_at=clock.now(),
    )
    if report.differences:
        logger.error(
            "Comparison %s: %s rows of the sync %s differ from Morango's. The admin names them.",
            comparison.pk,
            report.differences,
            comparison.transfer_session_id,
        )
    return f"{report.records:,} records, {report.differences:,} differences"


@dataclass(frozen=True)
class Totals:
    """Numbers of comparisons by their results."""

    same: int
    different: int
    failed: int
    waiting: int
    differences: int
    """Number of rows that differ, of all comparisons together."""

    @property
    def total(self) -> int:
        return self.same + self.different + self.failed + self.waiting


def totals(since: Any = None) -> Totals:
    """Count the comparisons in the ledger.

    :param since: a moment, or an expression for one; comparisons that ended before are left out
    Cost: one query.
    """
    completed = Q(state=Comparison.State.COMPLETED)
    recent = Q() if since is None else Q(finished_at=None) | Q(finished_at__gte=since)
    found = Comparison.objects.filter(recent).aggregate(
        same=Count("pk", filter=completed & Q(differences=0)),
        different=Count("pk", filter=completed & Q(differences__gt=0)),
        failed=Count("pk", filter=Q(state=Comparison.State.FAILED)),
        waiting=Count("pk", filter=Q(state__in=Comparison.UNFINISHED)),
        differences=Sum("differences"),
    )
    return Totals(**{name: number or 0 for name, number in found.items()})
