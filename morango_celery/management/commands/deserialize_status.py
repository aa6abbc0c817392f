from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError, CommandParser
from typing_extensions import override

from morango_celery.api import runs_in_process
from morango_celery.comparison.shadow import totals
from morango_celery.errors import UnknownRunError
from morango_celery.management import nagios
from morango_celery.management.arguments import length_of_list, limit, run_number, seconds, time_or_age
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.deadline import ends_after
from morango_celery.management.formatting import TABLE_HEADING, as_table_row, as_text
from morango_celery.management.json_output import list_json, run_json
from morango_celery.management.judgement import (
    FINE,
    Kind,
    Limits,
    Problem,
    exit_status,
    problems_of_all,
    problems_of_run,
)
from morango_celery.management.overview_output import numbers, summary
from morango_celery.management.run_command import errors_in_one_line, show_failures
from morango_celery.management.screen import Screen
from morango_celery.management.wakeup import Wakeup, wakeup_on_stop_signals
from morango_celery.printable import printable
from morango_celery.runs.overview import moment_of, overview
from morango_celery.runs.status import RECENT, recent, status_of
from morango_celery.runs.workers import signs_of_workers

UNKNOWN = 1
UNKNOWN_RUN = 5

STATUSES = f"""\
exit status, that of the first line that fits:
  {UNKNOWN}  it can't be known: the database or the settings are not in order, or --timeout has passed
  2  the arguments are wrong
  {UNKNOWN_RUN}  the ledger has no such run
  {Kind.NO_WORKER.value}  no worker has given a sign of life for too long, and one is needed
  {Kind.STALLED.value}  the run, or one of those that are not done, has shown no sign of life for too long
  {Kind.FAILED.value}  the run failed or was cancelled, or every record of it failed; without RUN: one did,
     and no later run of the same records made it good (cancelled ones don't count)
  {Kind.LIMIT.value}  a limit is exceeded (--max-failed, --max-pending), or a compared sync differs
  {FINE}  all is well; records may be in error

with --nagios: 0 (OK); 1 (WARNING) for {Kind.LIMIT.value}; 2 (CRITICAL) for {Kind.NO_WORKER.value}, \
{Kind.STALLED.value} and {Kind.FAILED.value}; 3 (UNKNOWN) for the others
"""


@dataclass(frozen=True)
class _Look:
    """The state at one moment."""

    problems: list[Problem]
    has_ended: bool = False
    """True if there is nothing to wait for."""


class Command(PipeSafeCommand):
    help = "Show how far a run is, or the newest runs, and exit with a status for monitors."

    exit_statuses = STATUSES

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "run", nargs="?", type=run_number, metavar="RUN", help="the run's number; all when left out"
        )
        parser.add_argument(
            "--watch", action="store_true", help="look again and again, until the run has ended or Ctrl-C"
        )
        parser.add_argument(
            "--interval", type=seconds, default=1.0, metavar="SECONDS", help="between two looks (default: 1)"
        )
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="a line of JSON for each look")
        form.add_argument(
            "--nagios", action="store_true", help="output and exit status of a plugin for Nagios or Icinga"
        )
        parser.add_argument(
            "--last",
            type=length_of_list,
            default=RECENT,
            metavar="N",
            help=f"how many runs to list (default: {RECENT}); the exit status is about all",
        )
        parser.add_argument(
            "--since",
            type=time_or_age,
            metavar="TIME",
            help="count runs that failed, and syncs that differ, since then: 24h, say, or a time in ISO 8601 "
            "(default: all in the ledger)",
        )
        parser.add_argument(
            "--max-failed", type=limit, metavar="N", help="how many records may be in error, or failed in RUN"
        )
        parser.add_argument(
            "--max-pending", type=seconds, metavar="SECONDS", help="how long a run may wait for a worker"
        )
        parser.add_argument(
            "--stalled-after",
            type=seconds,
            metavar="SECONDS",
            help="how long a run may show no sign of life (default: STALLED_AFTER_SECONDS of the settings; "
            "four times that for one in process)",
        )
        parser.add_argument(
            "--worker-within",
            type=seconds,
            metavar="SECONDS",
            help="within how long some worker has to give a sign of life (default: a third of "
            "STALLED_AFTER_SECONDS)",
        )
        parser.add_argument(
            "--timeout",
            type=seconds,
            metavar="SECONDS",
            help=f"end after that, with {UNKNOWN} if the answer isn't known; with --watch, with the status "
            "of the last look",
        )

    @override
    def run_from_argv(self, argv: Sequence[str]) -> None:
        if "--nagios" not in argv:
            super().run_from_argv(argv)
            return
        self._is_judged = False
        try:
            super().run_from_argv(argv)
        except SystemExit as ended:  # wrong arguments and settings, among others
            sys.exit(ended.code if self._is_judged or not ended.code else nagios.UNKNOWN)
        except Exception as error:  # a monitor reads the first line, and knows four statuses
            self._tell_unknown(f"{type(error).__name__}: {printable(error)}")
            sys.exit(nagios.UNKNOWN)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["nagios"] and options["watch"]:
                raise CommandError("--nagios looks once: it can't go with --watch.", returncode=2)
            with errors_in_one_line(), self._limited(options):
                try:
                    problems = self._watch(options) if options["watch"] else self._look(options).problems
                except UnknownRunError as error:
                    raise CommandError(str(error), returncode=UNKNOWN_RUN) from error
        except CommandError as error:
            if options["nagios"]:
                self._tell_unknown(str(error))
                sys.exit(nagios.UNKNOWN)
            raise
        status = nagios.status_of(problems) if options["nagios"] else exit_status(problems)
        self._is_judged = True
        if status != FINE:
            sys.exit(status)

    def _limited(self, options: dict[str, Any]) -> AbstractContextManager[None]:
        text = f"It took longer than {options['timeout']} s: the database doesn't answer."
        limit_seconds = options["timeout"]
        if options["watch"] and limit_seconds is not None:
            limit_seconds += options["interval"]  # the loop ends in time, unless a look doesn't
        if options["nagios"]:
            (line,) = nagios.lines(nagios.UNKNOWN, [text], {})
            return ends_after(limit_seconds, line, nagios.UNKNOWN, descriptor=1)
        return ends_after(limit_seconds, text, UNKNOWN)

    def _tell_unknown(self, text: str) -> None:
        self.stdout.write("\n".join(nagios.lines(nagios.UNKNOWN, text.splitlines(), {})))

    def _watch(self, options: dict[str, Any]) -> list[Problem]:
        shown = Screen(self.stdout)
        until = None if options["timeout"] is None else time.monotonic() + options["timeout"]
        with wakeup_on_stop_signals() as wakeup:
            while True:
                look = self._look(options, shown)
                if look.has_ended or _stops(wakeup, options["interval"], until):
                    return look.problems

    def _look(self, options: dict[str, Any], screen: Screen | None = None) -> _Look:
        """Show the state, and return it."""
        screen = screen or Screen(self.stdout)
        limits = Limits(options["max_failed"], options["max_pending"], options["worker_within"])
        if options["run"] is None:
            return _Look(self._list(options, limits, screen))
        return self._show_run(options, limits, screen)

    def _show_run(self, options: dict[str, Any], limits: Limits, screen: Screen) -> _Look:
        status = status_of(options["run"], options["stalled_after"])
        run = status.run
        workers = None if run.has_ended or run.in_process else signs_of_workers()
        problems = problems_of_run(status, workers, limits)
        if options["json"]:
            self.stdout.write(json.dumps(run_json(status, problems)))
        elif options["nagios"]:
            data = {"records": run.records, "done": run.done, "failed": run.failed}
            self._tell(problems, as_text(status), {**data, "idle_seconds": status.idle_seconds})
        else:
            lost = [f"  {problem.text}" for problem in problems if problem.kind is Kind.NO_WORKER]
            screen.show([*as_text(status), *lost])
            if run.has_ended and run.failed:
                show_failures(self.stdout, run)
        return _Look(problems, run.has_ended)

    def _list(self, options: dict[str, Any], limits: Limits, screen: Screen) -> list[Problem]:
        since = options["since"]
        listed = [] if options["nagios"] else recent(options["last"], options["stalled_after"])
        found = overview(since, options["stalled_after"], needs_workers=not runs_in_process())
        comparisons = totals(None if since is None else moment_of(since))
        problems = problems_of_all(found, comparisons, limits)
        if options["json"]:
            self.stdout.write(json.dumps(list_json(listed, found, comparisons, problems)))
        elif options["nagios"]:
            self._tell(problems, summary(found, comparisons), numbers(found, comparisons))
        else:
            table = [TABLE_HEADING, *map(as_table_row, listed)] if listed else ["There are no runs."]
            screen.show([*table, *summary(found, comparisons), *(problem.text for problem in problems)])
        return problems

    def _tell(self, problems: list[Problem], texts: list[str], data: dict[str, float]) -> None:
        """Write the output of a plugin."""
        said = [*(problem.text for problem in problems), *texts]
        self.stdout.write("\n".join(nagios.lines(nagios.status_of(problems), said, data)))


def _stops(wakeup: Wakeup, interval_seconds: float, until: float | None) -> bool:
    """Wait for the next look.

    :param until: time of the monotonic clock at which there is none any more; None for no end
    :returns: True if there is none
    """
    left_seconds = interval_seconds if until is None else max(until - time.monotonic(), 0.0)
    wakeup.wait(min(interval_seconds, left_seconds))
    return wakeup.stop_requested or (until is not None and time.monotonic() >= until)
