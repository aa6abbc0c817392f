"""Run: one deserialization, its moves from state to state, and the statements that save them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.db import connection, models, transaction
from django.db.models import Q, Subquery
from typing_extensions import override

from morango_celery import clock
from morango_celery.db.prepared import Statement, anything, concrete_fields, kept, number, updating
from morango_celery.errors import FatalError
from morango_celery.models.run_log import log_end
from morango_celery.models.run_summary import RunSummary
from morango_celery.version import FORM


class Runs(models.QuerySet["Run"]):
    """Query of runs."""

    deleter: ClassVar[Callable[[models.QuerySet[Any]], tuple[int, dict[str, int]]]]
    """Function of `models.deletion`, which knows the other tables and this module."""

    @override
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete runs with their batches. Their share in the metrics' counters is kept."""
        return type(self).deleter(self)

    delete.queryset_only = True  # type: ignore[attr-defined]  # as Django's own: no manager has it


class Run(RunSummary):  # type: ignore[explicit-override]  # methods that Django makes for the columns
    """One deserialization of a profile under a sync filter."""

    objects = Runs.as_manager()

    has_released = False
    """True if other runs may begin since this instance wrote the end of the run."""

    @override
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save as Django does. A time that the database has set is read on first access."""
        super().save(*args, **kwargs)
        for name, value in list(vars(self).items()):
            if hasattr(value, "resolve_expression"):
                delattr(self, name)

    @override
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete the run with its batches, as `Runs.delete` does."""
        return Run.objects.filter(pk=self.pk).delete()

    def move_to(self, state: Run.State, error: str = "") -> None:
        """Change the state of a row that is locked by this transaction, and save it.

        :raises FatalError: the ledger knows no such move
        """
        self.change_state(state, error)
        self.save_active()
        if self.has_ended:
            self._let_others_go_on()
            self._log_end_on_commit()

    def change_state(self, state: Run.State, error: str = "") -> None:
        """Change the state of a row that this transaction has locked, and the caller saves.

        :raises FatalError: the ledger knows no such move
        """
        if not self.is_known:
            raise FatalError(f"{self.of_newer_version} It can't become {state.value} here.")
        if state not in self.MOVES[self.State(self.state)]:
            raise FatalError(f"Run {self.pk} is {self.state}; it can't become {state.value}.")
        self.state = state
        self.error = error
        if state is self.State.RUNNING:
            self.started_at = clock.now()
        elif self.has_ended:
            self.finished_at = clock.now()
            self.blocked_by = None
            self.paused = False

    def take_over(self) -> None:
        """Make an unknown row, locked by this transaction, one of this version's, to be ended and saved.

        What a newer version knows of it is lost. Its batches stay as they are, since nobody executes those of
        an ended run.
        """
        self.form = FORM
        if not self.is_known:
            self.state = self.State.RUNNING

    def _log_end_on_commit(self) -> None:
        reason = self.error if self.state == self.State.FAILED else ""
        line = partial(log_end, self.pk, self.progress_text, failed_records=self.failed, reason=reason)
        transaction.on_commit(line)

    def _let_others_go_on(self) -> None:
        """Complete the runs that were coalesced into this one if it is completed, else release them; release
        those that it blocked."""
        if self.coalesced_runs:
            taken_in = Run.objects.filter(coalesced_into=self, state=self.State.PENDING)
            if self.state == self.State.COMPLETED:
                own = Run.objects.filter(pk=self.pk)
                started_at, now = Subquery(own.values("started_at")), clock.now()
                taken_in.update(
                    state=self.state,
                    started_at=started_at,
                    finished_at=now,
                    last_activity_at=now,
                    paused=False,
                )
            else:
                released = taken_in.update(coalesced_into=None, sent_at=None, overdue_at=None)
                self.has_released |= released > 0
        self.has_released |= _releasing(self.coalesced_runs > 0).execute(self.pk, self.pk) > 0

    def save_active(self) -> None:
        """Save the row, with now as the time of the last activity."""
        self.last_activity_at = clock.now()
        self._save_loaded()
        if self.has_ended and self.open_batches:
            self.batches.all().forget_ids()

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
