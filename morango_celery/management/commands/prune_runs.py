from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any, TypedDict

from django.core.management.base import CommandError, CommandParser
from tqdm import tqdm
from typing_extensions import override

from morango_celery.management.arguments import age
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.formatting import number_of
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.wakeup import wakeup_on_stop_signals
from morango_celery.runs.pruning import Pruned, count_kept, count_prunable, prune_runs

INTERRUPTED = 130

STATUSES = f"""\
exit status:
  0  done
  1  it failed, and the last line says why; rows that were deleted by then stay deleted
  2  the arguments are wrong
  {INTERRUPTED}  it was interrupted (SIGTERM or Ctrl-C); the next call goes on
"""


class PrunedJson(TypedDict):
    """Numbers of deleted rows, as ``prune_runs --json`` writes them."""

    version: int
    runs: int
    batches: int
    comparisons: int
    kept_runs: int
    interrupted: bool


class Command(PipeSafeCommand):
    help = (
        "Delete runs and comparisons that ended long ago, with the runs' batches. Counters of the metrics "
        "keep their share. Safe at any moment, any number of times; once a day will do."
    )

    exit_statuses = STATUSES

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=age,
            required=True,
            metavar="AGE",
            help="how long ago they ended: a number with s, m, h, d or w, such as 90d",
        )
        parser.add_argument("--json", action="store_true", help="tell the numbers as one object of JSON")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        older_than: timedelta = options["older_than"]
        seconds = older_than.total_seconds()
        with errors_in_one_line(), wakeup_on_stop_signals() as wakeup:
            pruned = self._prune(seconds, lambda _: wakeup.stop_requested)
            kept = count_kept(seconds)
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(pruned, kept, wakeup.stop_requested)))
        else:
            self.stdout.write(_as_text(pruned, kept))
        if wakeup.stop_requested:
            raise CommandError("Interrupted; the next call goes on.", returncode=INTERRUPTED)

    @staticmethod
    def _prune(seconds: float, should_stop: Any) -> Pruned:
        is_shown = sys.stderr.isatty()
        total = count_prunable(seconds) if is_shown else None
        with tqdm(unit=" rows", total=total, disable=not is_shown) as bar:

            def show(pruned: Pruned) -> None:
                bar.set_postfix(batches=pruned.batches, refresh=False)
                bar.n = pruned.rows
                bar.refresh()

            return prune_runs(seconds, on_progress=show, should_stop=should_stop)


def _as_text(pruned: Pruned, kept: int) -> str:
    runs, comparisons = number_of(pruned.runs, "run"), number_of(pruned.comparisons, "comparison")
    batches = number_of(pruned.batches, "batch", "batches")
    text = f"{runs} with {batches} and {comparisons} deleted."
    if kept:
        text += f" Kept, since somebody still waits for it: {number_of(kept, 'run')} as old."
    return text


def _as_json(pruned: Pruned, kept: int, interrupted: bool) -> PrunedJson:
    return {
        "version": 1,
        "runs": pruned.runs,
        "batches": pruned.batches,
        "comparisons": pruned.comparisons,
        "kept_runs": kept,
        "interrupted": interrupted,
    }
