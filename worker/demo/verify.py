"""Comparison of both instances, column by column, in one walk through both in the order of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Any

from django.db.models import Q
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store, SyncableModel, TransferSession

from worker.demo.following import Sync
from worker.demo.school import CHUNK_RECORDS, MODELS
from worker.demo.table import Row
from worker.school.models import PROFILE

SHOWN = 10
"""Number of faults that are named."""

AppRow = tuple[Any, ...]


class Verification:
    """Result of the comparison."""

    def __init__(self) -> None:
        self.compared = 0
        """Number of app rows that both instances have."""
        self.problems: list[str] = []
        self._more = 0

    def report(self, problem: str) -> None:
        if len(self.problems) < SHOWN:
            self.problems.append(problem)
        else:
            self._more += 1

    @property
    def summary(self) -> str:
        more = [f"... and {self._more:,} more"] if self._more else []
        return "\n".join([*self.problems, *more])


def verify(sync: Sync, table: list[Row], device: str, on_progress: Callable[[int], None]) -> Verification:
    """Compare the server's rows with the expected ones.

    :param device: alias of the device's database
    :param on_progress: called with the number of rows compared, every now and then
    Cost: every app row is read once from both databases; memory holds a few thousand.
    """
    found = Verification()
    left_out = {record.id for record in (*sync.broken, *sync.orphans)}
    compare_app_rows(device, left_out, found, on_progress)
    _check_errors(sync, found)
    _check_counts(sync, table, found)
    _check_session(sync, found)
    return found


def compare_app_rows(
    device: str, left_out: Set[str], found: Verification, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Report every app row, but those `left_out`, that isn't the same on the device and on the server."""
    for model in MODELS:
        _compare(model, device, left_out, found, on_progress)


def _compare(
    model: type[SyncableModel],
    device: str,
    left_out: Set[str],
    found: Verification,
    on_progress: Callable[[int], None],
) -> None:
    names = [field.attname for field in model._meta.concrete_fields if not field.primary_key]
    for theirs, ours in _aligned(_app_rows(model, names, device), _app_rows(model, names, "default")):
        if ours is None and theirs is not None:
            if theirs[0] not in left_out:
                found.report(f"{model.__name__} {theirs[0]} is missing on the server")
        elif theirs is None and ours is not None:
            found.report(f"{model.__name__} {ours[0]} is on the server only")
        elif theirs is not None and ours is not None:
            found.compared += 1
            if theirs[0] in left_out:
                found.report(f"{model.__name__} {ours[0]} is broken, and yet on the server")
            for name, their, our in zip(names, theirs[1:], ours[1:], strict=True):
                if their != our:
                    found.report(f"{model.__name__} {ours[0]}: {name} is {our!r}, on the device {their!r}")
            if found.compared % CHUNK_RECORDS == 0:
                on_progress(found.compared)


def _app_rows(model: type[SyncableModel], names: list[str], alias: str) -> Iterator[AppRow]:
    rows = model.syncing_objects.using(alias).order_by("pk").values_list("pk", *names)
    return iter(rows.iterator(chunk_size=CHUNK_RECORDS))


def _aligned(
    left: Iterator[AppRow], right: Iterator[AppRow]
) -> Iterator[tuple[AppRow | None, AppRow | None]]:
    """Yield pairs of rows with the same id, or with None; both sides are in the order of ids."""
    ours, theirs = next(left, None), next(right, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            yield ours, None
            ours = next(left, None)
        elif ours is None or theirs[0] < ours[0]:
            yield None, theirs
            theirs = next(right, None)
        else:
            yield ours, theirs
            ours, theirs = next(left, None), next(right, None)


def _check_errors(sync: Sync, found: Verification) -> None:
    """Check that just the broken records are in error, and that no record waits without an error."""
    no_error = Q(deserialization_error=None) | Q(deserialization_error="")
    unfinished = Store.objects.filter(profile=PROFILE, dirty_bit=True)
    for record_id in unfinished.filter(no_error).values_list("id", flat=True)[:SHOWN]:
        found.report(f"Store row {record_id} is dirty, without an error")
    broken = {record.id for record in sync.broken}
    in_error = unfinished.exclude(no_error)
    for row in in_error.exclude(id__in=broken).order_by("pk")[:SHOWN]:
        found.report(f"{row.model_name} {row.id} is in error: {row.deserialization_error}")
    for record_id in broken - set(in_error.filter(id__in=broken).values_list("id", flat=True)):
        found.report(f"Store row {record_id} is broken, and not in error")


def _check_counts(sync: Sync, table: list[Row], found: Verification) -> None:
    """Check that every record has an outcome, and that the ledger agrees with the tables."""
    for row in table:
        if row.sent != row.saved + row.deleted + row.failed:
            found.report(f"{row.model_name}: {row.sent} sent, but not as many saved, deleted or failed")
    total, run = table[-1], sync.run
    counted = (total.saved, total.deleted, total.failed)
    ledger = (run.saved, run.deleted + run.propagated, run.failed) if run else None
    if counted != ledger:
        found.report(f"Saved, deleted and failed are {counted}; the ledger says {ledger}")


def _check_session(sync: Sync, found: Verification) -> None:
    session = TransferSession.objects.get(id=sync.transfer_session_id)
    state = (session.transfer_stage, session.transfer_stage_status, session.active)
    if state != (transfer_stages.CLEANUP, transfer_statuses.COMPLETED, False):
        found.report(f"The transfer session is left in the state {state}")
