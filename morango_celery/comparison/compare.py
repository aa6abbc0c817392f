"""Comparison of Morango's function and ours on the same records, of which nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import DatabaseError, IntegrityError, InterfaceError, connection
from django.db.models import ProtectedError, RestrictedError
from django.utils.module_loading import import_string
from morango.models.core import InstanceIDModel, Store

from morango_celery.comparison.differences import Found, differing_columns
from morango_celery.comparison.documented import CHANCE, ORDER, SET_ASIDE, Fate, explanation
from morango_celery.comparison.report import Report, Request
from morango_celery.comparison.results import UNTOUCHED, Pair, Results, SideName, temporary_results
from morango_celery.comparison.rows import Reader, reader
from morango_celery.comparison.second_look import MAX_RECORDS, RowKey, equal_after_retries, varying
from morango_celery.comparison.selection import select
from morango_celery.comparison.sides import (
    OnProgress,
    Outcomes,
    RolledBack,
    SideResult,
    by_model,
    failure,
    rolled_back,
    run_morango,
    run_ours,
)
from morango_celery.comparison.tables import Table, compared_tables
from morango_celery.db.dialect import dialect
from morango_celery.db.errors import is_transient, remedy
from morango_celery.db.transactions import first_error_wins
from morango_celery.deserialization.locks import take_write_lock
from morango_celery.errors import ComparisonError
from morango_celery.stream import chunked
from morango_celery.upstream import isolated_transaction, within_open_transaction

TIMEOUTS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "tcp_user_timeout")
"""Settings of PostgreSQL by which it ends a comparison whose process is frozen or out of reach: syncs would
wait for its locks."""

MAX_SET_ASIDE = 10_000
"""Largest number of records that are set aside because they may abort Morango's function."""

MORANGO_GOES_ON_AFTER = (ValidationError, ObjectDoesNotExist, ValueError, IntegrityError)
"""Errors of a record that don't abort Morango's function, unless a deletion raises them."""


class _TimeIsUp(BaseException):
    """The time limit was reached: no model's ``except Exception`` may take it for its own."""


def compare(
    request: Request,
    on_progress: OnProgress | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Deserialize the same records by Morango's function and by ours, and compare all that they leave.

    It is one transaction, with one view of the data, and it is always rolled back. It holds Morango's
    exclusive lock of the filter's partitions, and the rows that are written.

    :param on_progress: called with the side's name and its number of done records, now and then
    :param is_stopped: asked before each statement; when it returns True, everything is rolled back
    :raises ComparisonError: they could not be compared; its text says why
    :raises KeyboardInterrupt: `is_stopped` returned True
    :raises MorangoDatabaseError: on PostgreSQL, inside an open transaction
    Cost: the time of both functions, and a reading of the tables that they write.
    """
    began = time.monotonic()
    deadline = None if request.seconds is None else began + request.seconds
    report: Report | None = None
    try:
        with temporary_results() as results, first_error_wins(), _transaction(request, deadline, is_stopped):
            report = _Comparison(request, results, on_progress).report(began)
            raise RolledBack
    except RolledBack:
        pass
    except _TimeIsUp as error:
        raise _too_long(request) from error
    except (DatabaseError, InterfaceError) as error:
        # By the limits that were set below, a lost connection included: so ends one that stands still
        if _is_past(deadline) and is_transient(error):
            raise _too_long(request) from error
        raise ComparisonError(
            f"The database ended the comparison: {failure(error, request)}\n{remedy(error)}"
        ) from error
    assert report is not None
    return report


def _too_long(request: Request) -> ComparisonError:
    return ComparisonError(
        f"Comparing took longer than {request.seconds:g} s, so it was rolled back. Take fewer records, "
        "or allow more time."
    )


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


@contextmanager
def _transaction(request: Request, deadline: float | None, is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Open the transaction in which everything happens; whoever uses it rolls it back."""

    def begin() -> None:
        take_write_lock()
        if request.seconds is not None and dialect().has_timeouts:
            milliseconds = max(round(request.seconds * 1000), 1)
            with connection.cursor() as cursor:
                for name in TIMEOUTS:
                    cursor.execute(f"SET LOCAL {name} = {milliseconds}")

    def execute(call: Callable[..., Any], sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        if not (isinstance(sql, str) and sql.startswith(("ROLLBACK", "RELEASE"))):
            if is_stopped():  # a signal's handler can't raise it: in a finalizer of Python's it would be lost
                raise KeyboardInterrupt
            if _is_past(deadline):
                raise _TimeIsUp
        return call(sql, parameters, many, context)

    with (
        isolated_transaction(request.sync_filter, begin),
        within_open_transaction(),
        connection.execute_wrapper(execute),
    ):
        yield


class _Comparison:
    """One comparison, in its open transaction."""

    def __init__(self, request: Request, results: Results, on_progress: OnProgress | None) -> None:
        self._request = request
        self._results = results
        self._on_progress = on_progress
        self._tables = {table.name: table for table in compared_tables()}
        self._equal_after_retries: set[RowKey] = set()
        self._store = self._tables[Store._meta.db_table]

    def report(self, began: float) -> Report:
        """Run both sides and compare the results."""
        request = self._request
        InstanceIDModel.get_or_create_current_instance()  # or each side makes an identity of its own
        quarantined = select(request)
        rows = reader(show_values=request.show_values)
        set_aside: dict[str, str] = {}
        while True:
            before = Outcomes.now(request)
            ours, morango = self._run_both(rows)
            if morango.figures.failed_with is None:
                break
            self._set_aside(set_aside, morango.figures.failed_with)
        found = self._differences(rows)
        found.documented.update({SET_ASIDE: len(set_aside)} if set_aside else {})
        return Report(
            profile=request.profile,
            filter=None if request.sync_filter is None else list(request.sync_filter),
            replayed=request.replay,
            records=sum(before.waiting.values()),
            quarantined=quarantined,
            set_aside=set_aside,
            morango=morango.figures,
            ours=ours.figures,
            seconds=round(time.monotonic() - began, 3),
            models=by_model(before, morango, ours),
            differences=found.undocumented,
            documented=dict(sorted(found.documented.items())),
            examples=found.first(),
        )

    def _run_both(self, rows: Reader) -> tuple[SideResult, SideResult]:
        """Run our side, then Morango's, each on the same state, and keep the rows that they leave."""
        tables = self._tables
        self._results.clear()
        with rolled_back():
            before = rows.writes()
            ours = run_ours(self._request, self._on_progress)
            if ours.figures.failed_with is not None:
                raise ComparisonError(
                    f"Our side could not be carried out: {ours.figures.failed_with}. A run would fail, too."
                )
            ours_wrote = self._written_since(before, rows)
            digests = self._keep("ours", rows, ours_wrote)
        with rolled_back():
            before = rows.writes()
            morango = run_morango(self._request, self._on_progress)
            if morango.figures.failed_with is not None:
                return ours, morango
            wrote = ours_wrote | self._written_since(before, rows)
            theirs = self._keep("morango", rows, wrote)
            suspicious = {name for name in wrote if theirs[name] != digests.get(name)}
            for name in suspicious:
                self._results.add("morango", name, rows.untouched(tables[name]))
            with suppress(_TimeIsUp):  # the rows are there, and may go unexplained
                self._equal_after_retries = equal_after_retries(
                    self._request, self._results, rows, self._store, tables.values()
                )
        if suspicious:  # rows are gone, or written on one side only: now all keys are needed, of both
            with rolled_back():
                run_ours(self._request)
                for name in suspicious:
                    self._results.forget("ours", name)
                    self._results.add("ours", name, rows.untouched(tables[name]))
                    self._results.add("ours", name, rows.written(tables[name]))
            for name in suspicious:
                self._fill_in(rows, tables[name])
        return ours, morango

    def _written_since(self, before: Mapping[str, int] | None, rows: Reader) -> set[str]:
        """Return the names of compared tables that were written since `before`; all if that isn't known."""
        now = rows.writes()
        if before is None or now is None:
            return set(self._tables)
        return {name for name in self._tables if now.get(name, 0) != before.get(name, 0)}

    def _keep(self, side: SideName, rows: Reader, names: set[str]) -> dict[str, tuple[Any, ...]]:
        """Keep the rows that a side wrote in these tables; return the digests of the others."""
        digests = {}
        for name in sorted(names):
            table = self._tables[name]
            digests[name] = rows.untouched_digest(table)
            self._results.add(side, name, rows.written(table))
        return digests

    def _fill_in(self, rows: Reader, table: Table) -> None:
        """Note the present hashes of rows that only one side wrote, for the other side."""
        for keys in list(self._results.half_untouched(table.name)):
            for row in rows.at(table, keys):
                side = self._results.side_that_left(table.name, row.key, UNTOUCHED)
                self._results.put(side, table.name, row)

    def _set_aside(self, known: dict[str, str], reason: str) -> None:
        """Make records clean that may have aborted Morango's function.

        At first these are the records with errors that do, if there are any; then all that failed.

        :raises ComparisonError: none are left
        """
        failed = {key: fate.path for key, fate in self._failed_with_us()}
        aborting = {} if known else {key: path for key, path in failed.items() if _may_abort_morango(path)}
        in_error = aborting or failed
        if not in_error or len(known) + len(in_error) > MAX_SET_ASIDE:
            raise ComparisonError(
                f"Morango's own function is aborted by these records: {reason}\n"
                "So there is nothing to compare with. Compare fewer records at a time (--filter, --records)."
            )
        known |= in_error
        for chunk in chunked(in_error, 500):
            Store.objects.filter(pk__in=chunk).update(dirty_bit=False)

    def _failed_with_us(self) -> Iterator[tuple[str, Fate]]:
        for row in self._results.rows("ours", self._store.name):
            fate = Fate.of(row)
            if fate is not None and fate.is_dirty and fate.path:
                yield row.key, fate

    def _differences(self, rows: Reader) -> Found:
        """Return the rows that differ; those that no rule explains are looked at again, if they are few."""
        found = Found(self._request.show_values)
        suspects: list[tuple[Pair, Table]] = []
        for table in self._tables.values():
            for pair in self._results.differing(table.name):
                columns = differing_columns(table, pair)
                if columns is None:
                    continue
                explained = explanation(pair, table, columns, self._results, self._store)
                if explained is None and (table.name, pair.key) in self._equal_after_retries:
                    explained = ORDER
                if explained is None and len(suspects) <= MAX_RECORDS:
                    suspects.append((pair, table))
                else:
                    found.add(pair, columns, explained)
        varies: set[RowKey] = set()
        if 0 < len(suspects) <= MAX_RECORDS:
            with suppress(_TimeIsUp):  # then they stay unexplained
                varies = varying(self._request, rows, suspects)
        for pair, table in suspects:
            by_chance = CHANCE if (table.name, pair.key) in varies else None
            found.add(pair, differing_columns(table, pair) or [], by_chance)
        return found


def _may_abort_morango(path: str) -> bool:
    try:
        kind = import_string(path)
    except ImportError:  # a class within a function
        return True
    return issubclass(kind, ProtectedError | RestrictedError) or not issubclass(kind, MORANGO_GOES_ON_AFTER)
