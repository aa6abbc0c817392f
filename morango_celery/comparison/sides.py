"""The two sides: each function deserializes the selected records within a savepoint that is rolled back."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import Error, connection, transaction
from django.db.models import Count, Q
from morango.models.core import DeletedModels, Store

from morango_celery.comparison.report import Counts, ModelFigures, Request, SideFigures
from morango_celery.comparison.selection import records_of
from morango_celery.db.driver import sqlstate_of
from morango_celery.models import Run
from morango_celery.printable import printable
from morango_celery.runs.inprocess import rehearse
from morango_celery.runs.producer import create_run
from morango_celery.upstream import morangos_stage

OnProgress = Callable[[str, int], None]
"""Called with the side's name, and the number of records that it has done."""


class RolledBack(Exception):  # noqa: N818  (not an error)
    """The end of a block of which nothing is kept."""


@contextmanager
def rolled_back() -> Iterator[None]:
    """Open a savepoint that is rolled back at the end of the block."""
    with suppress(RolledBack), transaction.atomic():
        yield
        raise RolledBack


@dataclass(frozen=True)
class Outcomes:
    """Dirty records by model, and by whether they are deleted in the Store."""

    waiting: Mapping[tuple[str, bool], int]
    in_error: Mapping[tuple[str, bool], int]
    propagated: Mapping[str, int]
    """Records by model that aren't deleted in the Store, and are noted in `DeletedModels`."""

    @classmethod
    def now(cls, request: Request) -> Outcomes:
        """Count the records under the filter as they are at the moment."""
        whole = records_of(Request(request.profile, request.sync_filter))
        dirty = whole.filter(dirty_bit=True).order_by().values_list("model_name", "deleted", "hard_deleted")
        waiting: dict[tuple[str, bool], int] = {}
        in_error: dict[tuple[str, bool], int] = {}
        failed = Count("pk", filter=~Q(deserialization_error=None) & ~Q(deserialization_error=""))
        for model, deleted, hard_deleted, count, errors in dirty.annotate(n=Count("pk"), errors=failed):
            key = (model, deleted or hard_deleted)
            waiting[key] = waiting.get(key, 0) + count
            in_error[key] = in_error.get(key, 0) + errors
        noted = whole.filter(deleted=False, hard_deleted=False, pk__in=DeletedModels.objects.values("id"))
        propagated = dict(noted.order_by().values_list("model_name").annotate(n=Count("pk")))
        return cls(waiting, in_error, propagated)


@dataclass(frozen=True)
class SideResult:
    """One side's figures, and the state of the records after it."""

    figures: SideFigures
    after: Outcomes | None
    """None where the function was ended by an exception."""

    def counts(self, model: str, before: Outcomes) -> Counts:
        """Return the outcomes of the records of a model."""
        if self.after is None:
            return Counts()
        failed = self.after.in_error.get((model, False), 0)
        failed_deletions = self.after.in_error.get((model, True), 0)
        propagated = self.after.propagated.get(model, 0) - before.propagated.get(model, 0)
        # Morango leaves those dirty that it has noted as deleted
        left = max(self.after.waiting.get((model, False), 0) - failed - propagated, 0)
        return Counts(
            saved=before.waiting.get((model, False), 0) - failed - propagated - left,
            deleted=before.waiting.get((model, True), 0) - failed_deletions + propagated,
            failed=failed + failed_deletions,
            left=left,
        )


def run_morango(request: Request, on_progress: OnProgress | None = None) -> SideResult:
    """Deserialize by Morango's own function, in the open savepoint."""
    done = 0
    update = f"UPDATE {connection.ops.quote_name(Store._meta.db_table)}"

    def execute(call: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        nonlocal done
        # Morango writes a record's Store row at last
        if on_progress is not None and isinstance(sql, str) and sql.startswith(update):
            done += 1
            on_progress("Morango", done)
        return call(sql, parameters, many, context)

    with connection.execute_wrapper(execute):
        return _run(request, lambda: morangos_stage(request.profile, request.sync_filter))


def run_ours(request: Request, on_progress: OnProgress | None = None) -> SideResult:
    """Deserialize by our pipeline, with a ledger of its own, in the open savepoint."""

    def progress(run: Run) -> None:
        if on_progress is not None:
            on_progress("morango_celery", run.done)

    def carry_out() -> None:
        run = create_run(
            request.profile, request.sync_filter, session_notified=True, in_process=True, serialize_first=True
        )
        rehearse(run, progress).require_success()

    return _run(request, carry_out)


def _run(request: Request, function: Callable[[], None]) -> SideResult:
    failed_with = None
    memory = _Memory()
    began = time.perf_counter()
    try:
        with transaction.atomic():
            function()
            connection.check_constraints()  # as COMMIT would
    except Exception as error:  # an exception that ends Morango's function is a result
        if isinstance(error, Error) and _is_about_the_transaction(error):
            raise
        failed_with = failure(error, request)
    figures = SideFigures(round(time.perf_counter() - began, 3), memory.growth(), failed_with)
    return SideResult(figures, None if failed_with else Outcomes.now(request))


def failure(error: Exception, request: Request) -> str:
    """Return the name of an error, and its text as far as it can't have values of records."""
    name = type(error).__name__
    if request.show_values:
        return printable(f"{name}: {error}")
    # The database names tables, columns and constraints in the first line, and values after it
    return printable(f"{name}: {str(error).partition(chr(10))[0]}") if isinstance(error, Error) else name


def _is_about_the_transaction(error: Error) -> bool:
    """Return True if the database ended the statement for a reason that has nothing to do with records."""
    # A lock or a time limit, a conflict with another session, a resource, or the connection
    code = sqlstate_of(error.__cause__) or ""
    return code[:2] in ("40", "53", "55", "57", "58", "08") or code == "25P03"


def by_model(before: Outcomes, morango: SideResult, ours: SideResult) -> list[ModelFigures]:
    """Return the outcomes of each model with waiting records, by name."""
    names = sorted({model for model, _ in before.waiting})
    return [
        ModelFigures(
            name,
            before.waiting.get((name, False), 0) + before.waiting.get((name, True), 0),
            morango.counts(name, before),
            ours.counts(name, before),
        )
        for name in names
    ]


class _Memory:
    """The highest resident memory of this process from now on, as Linux tells it."""

    def __init__(self) -> None:
        self._start = None
        _release_memory()  # or the second side would use what the first one has left
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._start = _status("VmRSS")

    def growth(self) -> int | None:
        """Return the bytes by which it grew at its highest; None where the system doesn't tell."""
        if self._start is None:
            return None
        return max((_status("VmHWM") or 0) - self._start, 0)


def _release_memory() -> None:
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int | None:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None
