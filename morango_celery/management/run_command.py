"""A command that starts a run: progress while it lasts, and a summary of the results."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.db import DatabaseError, InterfaceError

from morango_celery.db.errors import remedy
from morango_celery.errors import MorangoCeleryError, TransientError
from morango_celery.management.arguments import seconds
from morango_celery.management.base import INTERRUPTED, WRONG_ARGUMENTS, PipeSafeCommand, exit_statuses
from morango_celery.management.formatting import number_of, quarantined_text
from morango_celery.management.json_output import run_json
from morango_celery.management.progress import ProgressBar, progress_bar
from morango_celery.management.results import add_json
from morango_celery.models import Run
from morango_celery.printable import printable, printable_lines
from morango_celery.runs.pausing import holder, in_force, in_words
from morango_celery.runs.report import failures
from morango_celery.runs.status import count_quarantined, status_of

TIMED_OUT = 124
"""The exit status of ``timeout(1)`` for a command that took too long."""


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

    exit_statuses = exit_statuses(
        {
            1: "it failed, and the last line says why; or the run has ended with records in error",
            TIMED_OUT: "the run has not ended within --timeout, and goes on",
            INTERRUPTED: "interrupted by Ctrl-C; workers go on with the run",
        }
    )
    _run: Run | None = None
    """The run that was started, as it was seen last."""

    def add_waiting(self, parser: ArgumentParser) -> None:
        """Add the options about the wait for the run's end."""
        parser.add_argument("--wait", action="store_true", help="wait for the workers, showing progress")
        parser.add_argument(
            "--timeout",
            type=seconds,
            metavar="SECONDS",
            help=f"with --wait: wait no longer, and exit with {TIMED_OUT}; the run goes on",
        )
        add_json(parser, "write the run as a line of JSON, with --wait as it begins and as it ends")

    def follow_run(
        self,
        options: Mapping[str, Any],
        start: Callable[[bool | float, Callable[[Run], None]], Run],
        *,
        in_process: bool = False,
    ) -> None:
        """Start a run and show its progress; summarize it when it has ended.

        :param options: those of `add_waiting`
        :param start: starts a run, given the time to wait for it, and a function to show it with meanwhile
        :param in_process: True if the run is carried out here
        """
        if options["timeout"] is not None and not options["wait"]:
            raise CommandError("--timeout needs --wait.", returncode=WRONG_ARGUMENTS)
        if options["timeout"] is not None and in_process:
            raise CommandError(
                "--timeout limits the wait for workers, and this run would be carried out here.",
                returncode=WRONG_ARGUMENTS,
            )
        wait = options["wait"] if options["timeout"] is None else options["timeout"]
        announces = options["wait"] and (options["json"] or not sys.stderr.isatty())
        self._run = None
        try:
            with errors_in_one_line(), progress_bar("records") as bar:
                run = start(wait, lambda run: self._see(run, bar, options["json"], announces))
        except KeyboardInterrupt:
            self.stderr.write(f"Interrupted. {self._going_on()}")
            sys.exit(INTERRUPTED)
        except CommandError as error:
            if isinstance(error.__cause__, TransientError) and self._goes_on():
                self.stderr.write(f"The run has not ended after {options['timeout']:g} s. {self._going_on()}")
                sys.exit(TIMED_OUT)
            raise
        self._conclude(run, options["json"])

    def _see(self, run: Run, bar: ProgressBar, as_json: bool, announces: bool) -> None:
        """Show progress; a run that is seen for the first time is named where no bar shows it."""
        if self._run is None and announces and not run.in_process:
            self._write(run, f"Run {run.pk} of {printable(run.profile)} has begun.", as_json)
        self._run = run
        # The total grows with each stage, and isn't known before the end.
        bar.show(run.done, run.records, f"run {run.pk}", stage=run.stage, failed=run.failed)

    def _goes_on(self) -> bool:
        return self._run is not None and not self._run.in_process and not self._run.has_ended

    def _going_on(self) -> str:
        """Return a sentence or two about the run that nobody waits for any more."""
        if self._run is None:
            return "If a run was begun by then, `manage.py deserialize_status` lists it."
        number = self._run.pk
        if self._run.in_process:
            return f"Run {number} ends with this process; what is done is kept. The next run takes the rest."
        return (
            f"Run {number} goes on: `manage.py deserialize_status {number}` tells how far it is, "
            f"`manage.py cancel_run {number}` ends it."
        )

    def _write(self, run: Run, text: str, as_json: bool) -> None:
        if as_json:
            self.write_json(run_json(status_of(run.pk)))
        else:
            self.stdout.write(text)

    def _conclude(self, run: Run, as_json: bool) -> None:
        if not run.has_ended:
            self._write(run, _handed_over(run), as_json)
        elif as_json:
            self._write(run, "", as_json)
            if run.failed or failures(run):
                sys.exit(1)
        else:
            self._summarize(run)

    def _summarize(self, run: Run) -> None:
        if run.coalesced_into_id is not None:
            self.stdout.write(f"Run {run.pk}: {run.sharing}.")
            if show_failures(self.stdout, run):
                sys.exit(1)
            return
        assert run.finished_at is not None
        seconds = max((run.finished_at - run.created_at).total_seconds(), 0.001)
        others = f", {run.left_to_others} done by other runs" if run.left_to_others else ""
        self.stdout.write(
            f"Run {run.pk}: {number_of(run.records, 'record')} in {seconds:.1f} s "
            f"({run.records / seconds:.0f} a second): "
            f"{run.saved} saved, {run.deleted} deleted, {run.propagated} deleted with what they refer to, "
            f"{run.conflicted} conflicted with local edits, {run.failed} failed{others}."
        )
        quarantined = count_quarantined(run)
        if quarantined:
            self.stdout.write(f"  {quarantined_text(quarantined)}")
        if not run.failed:
            return
        show_failures(self.stdout, run)
        sys.exit(1)


def _handed_over(run: Run) -> str:
    if pause := holder(run, in_force()):
        return f"Run {run.pk} is in the ledger, and waits. {in_words([pause])}"
    if run.sent_at:
        return f"Run {run.pk} is in the ledger; workers take it from here."
    return (
        f"Run {run.pk} is in the ledger, but the broker can't be reached. Once it is back, "
        "`manage.py recover_runs` sends it."
    )


def show_failures(stream: OutputWrapper, run: Run) -> bool:
    """Show the errors of records under the run's filter, in groups with an example each. Return True if
    there are any."""
    groups = failures(run)
    if groups:
        stream.write("  In error now, under the run's filter:")
    for group in groups:
        stream.write(f"  {group.count} x {printable(group.model_name)}: {printable(group.title)}")
        stream.write(f"      e.g. {group.example_id}: {printable(group.example_error)}")
        for root in group.roots:
            stream.write(f"      because of {printable(root.text)}: {root.share_of(group.count)}")
    return bool(groups)
