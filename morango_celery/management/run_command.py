"""A command that starts a run: progress while it lasts, and a summary of the results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError, InterfaceError
from tqdm import tqdm

from morango_celery.db.errors import remedy
from morango_celery.errors import MorangoCeleryError
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.formatting import quarantined_text
from morango_celery.models import Run
from morango_celery.printable import printable, printable_lines
from morango_celery.runs.report import failures
from morango_celery.runs.status import count_quarantined


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Raise errors that an operator can resolve as one line, without a traceback.

    :raises CommandError: in place of what an operator can do something about
    """
    try:
        yield
    except MorangoCeleryError as error:
        raise CommandError(printable_lines(error)) from error
    except (DatabaseError, InterfaceError) as error:
        raise CommandError(f"{printable_lines(error)}\n{remedy(error)}") from error


class RunCommand(PipeSafeCommand):
    """Exits with 1 when records failed."""

    def follow_run(self, start: Callable[[Callable[[Run], None]], Run]) -> None:
        """Start a run and show its progress; summarize it when it has ended."""
        with errors_in_one_line(), tqdm(unit=" records", disable=not sys.stderr.isatty()) as bar:
            run = start(lambda run: _show(bar, run))
        if run.is_finished:
            self._summarize(run)
        else:
            self.stdout.write(
                f"Run {run.pk} is in the ledger; workers take it from here."
                if run.sent_at
                else f"Run {run.pk} is in the ledger, but the broker can't be reached. Once it is back, "
                "`manage.py recover_runs` sends it."
            )

    def _summarize(self, run: Run) -> None:
        if run.coalesced_into_id is not None:
            self.stdout.write(f"Run {run.pk}: {run.sharing}.")
            if show_failures(self.stdout, run):
                sys.exit(1)
            return
        assert run.finished_at is not None
        seconds = max((run.finished_at - run.created_at).total_seconds(), 0.001)
        self.stdout.write(
            f"Run {run.pk}: {run.records} records in {seconds:.1f} s ({run.records / seconds:.0f} a second): "
            f"{run.saved} saved, {run.deleted} deleted, {run.propagated} deleted with what they refer to, "
            f"{run.conflicted} conflicted with local edits, {run.failed} failed."
        )
        quarantined = count_quarantined(run)
        if quarantined:
            self.stdout.write(f"  {quarantined_text(quarantined)}")
        if not run.failed:
            return
        show_failures(self.stdout, run)
        sys.exit(1)


def show_failures(stream: OutputWrapper, run: Run) -> bool:
    """Show the errors of records under the run's filter, in groups with an example each. Return True if
    there are any."""
    groups = failures(run)
    if groups:
        stream.write("  In error now, under the run's filter:")
    for group in groups:
        stream.write(f"  {group.count} x {printable(group.model_name)}: {printable(group.title)}")
        stream.write(f"      e.g. {group.example_id}: {printable(group.example_error)}")
    return bool(groups)


def _show(bar: tqdm[Any], run: Run) -> None:
    """Update the bar. Its total grows with each stage, and isn't known before the end."""
    bar.total = run.records
    bar.n = run.done
    bar.set_postfix(stage=run.stage, failed=run.failed, refresh=False)
    bar.refresh()
