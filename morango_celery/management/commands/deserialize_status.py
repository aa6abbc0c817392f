from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser
from typing_extensions import override

from morango_celery.comparison.shadow import totals
from morango_celery.errors import UnknownRunError
from morango_celery.management.arguments import length_of_list, run_number, seconds
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.formatting import (
    TABLE_HEADING,
    as_table_row,
    as_text,
    comparisons_text,
    quarantined_text,
)
from morango_celery.management.json_output import list_json, run_json
from morango_celery.management.run_command import errors_in_one_line, show_failures
from morango_celery.management.wakeup import Wakeup, wakeup_on_stop_signals
from morango_celery.models import Run
from morango_celery.runs.pausing import in_force, in_words
from morango_celery.runs.status import (
    RECENT,
    Status,
    count_quarantined,
    recent,
    stalled,
    status_of,
    unfinished,
)

FINE = 0
STALLED = 3
FAILED = 4
UNKNOWN_RUN = 5

NAMED = 10
"""Number of stalled runs that a list names."""

STATUSES = f"""\
exit status:
  {FINE}  all is well: what runs shows signs of life, what has ended is completed (records may be in error)
  1  it can't be known: the database or the settings are not in order
  2  the arguments are wrong
  {STALLED}  the run, or one of those that are not done, has shown no sign of life for too long
  {FAILED}  the run failed or was cancelled; without RUN: one of those in the list failed, and none that came
     later of the same profile and filter was completed
  {UNKNOWN_RUN}  the ledger has no such run
"""


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
        parser.add_argument("--json", action="store_true", help="a line of JSON for each look")
        parser.add_argument(
            "--last",
            type=length_of_list,
            default=RECENT,
            metavar="N",
            help=f"how many runs to list (default: {RECENT})",
        )
        parser.add_argument(
            "--stalled-after",
            type=seconds,
            metavar="SECONDS",
            help="how long a run may show no sign of life (default: STALLED_AFTER_SECONDS of the settings; "
            "four times that for one in a process of its own)",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            try:
                status = self._watch(options) if options["watch"] else self._look(options)[0]
            except UnknownRunError as error:
                raise CommandError(str(error), returncode=UNKNOWN_RUN) from error
        if status != FINE:
            sys.exit(status)

    def _watch(self, options: dict[str, Any]) -> int:
        shown = _Screen(self.stdout)
        with wakeup_on_stop_signals() as wakeup:
            while True:
                status, has_ended = self._look(options, shown)
                if has_ended or _stops(wakeup, options["interval"]):
                    return status

    def _look(self, options: dict[str, Any], screen: _Screen | None = None) -> tuple[int, bool]:
        """Show the state, and return the exit status, and True if there is nothing to wait for."""
        screen = screen or _Screen(self.stdout)
        if options["run"] is None:
            return self._list(options, screen), False
        status = status_of(options["run"], options["stalled_after"])
        run = status.run
        if options["json"]:
            self.stdout.write(json.dumps(run_json(status)))
        else:
            screen.show(as_text(status))
            if run.is_finished and run.failed:
                show_failures(self.stdout, run)
        if status.is_stalled:
            return STALLED, False
        is_bad = run.is_finished and run.state != Run.State.COMPLETED
        return FAILED if is_bad else FINE, run.is_finished

    def _list(self, options: dict[str, Any], screen: _Screen) -> int:
        listed = recent(options["last"], options["stalled_after"])
        undone = unfinished().count()
        silent = list(stalled(options["stalled_after"]).order_by("pk").values_list("pk", flat=True)[:NAMED])
        quarantined = count_quarantined()
        comparisons = totals()
        pauses = in_force()
        if options["json"]:
            found = list_json(
                listed,
                unfinished=undone,
                stalled=silent,
                quarantined=quarantined,
                pauses=pauses,
                comparisons=comparisons,
            )
            self.stdout.write(json.dumps(found))
        else:
            lines = [TABLE_HEADING, *map(as_table_row, listed)] if listed else ["There are no runs."]
            lines.append(f"{undone:,} not done.")
            if quarantined:
                lines.append(f"{quarantined_text(quarantined)}.")
            if comparisons.total:
                lines.append(comparisons_text(comparisons))
            if pauses:
                lines.append(in_words(pauses))
            if silent:
                lines.append(f"STALLED, the oldest first: {', '.join(map(str, silent))}")
            screen.show(lines)
        if silent:
            return STALLED
        return FAILED if _unmended(listed) else FINE


def _unmended(listed: list[Status]) -> list[Run]:
    """Return the failed runs without a later completed one of the same profile and filter."""
    completed: set[tuple[str, str | None]] = set()
    found = []
    for run in (one.run for one in listed):  # the newest first
        task = (run.profile, run.filter)
        if run.state == Run.State.COMPLETED:
            completed.add(task)
        elif run.state == Run.State.FAILED and task not in completed:
            found.append(run)
    return found


def _stops(wakeup: Wakeup, seconds: float) -> bool:
    wakeup.wait(seconds)
    return wakeup.stop_requested


class _Screen:
    """Output that replaces itself on a terminal; elsewhere, only new lines are written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._before: list[str] = []

    def show(self, lines: list[str]) -> None:
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns
            lines = [line[:width] for line in lines]
            above = f"\x1b[{len(self._before)}F\x1b[J" if self._before else ""
            self._stream.write(above + "\n".join(lines))
        elif lines != self._before:
            self._stream.write("\n".join(lines))
        self._before = lines
