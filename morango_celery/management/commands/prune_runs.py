from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from typing_extensions import override

from morango_celery.management.arguments import age
from morango_celery.management.base import INTERRUPTED, PipeSafeCommand, exit_statuses
from morango_celery.management.formatting import number_of
from morango_celery.management.progress import progress_bar
from morango_celery.management.results import VERSION, PrunedRunsJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.wakeup import wakeup_on_stop_signals
from morango_celery.runs.pruning import Pruned, count_kept, count_prunable, prune_runs


class Command(PipeSafeCommand):
    help = (
        "Delete runs and comparisons that ended long ago, with the runs' batches. Counters of the metrics "
        "keep their share. Safe at any moment, any number of times; once a day will do."
    )

    exit_statuses = exit_statuses(
        {
            1: "it failed, and the last line says why; rows that were deleted by then stay deleted",
            INTERRUPTED: "interrupted by SIGTERM or Ctrl-C; the next call goes on",
        }
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=age,
            required=True,
            metavar="AGE",
            help="how long ago they ended: a number with s, m, h, d or w, such as 90d",
        )
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        older_than: timedelta = options["older_than"]
        seconds = older_than.total_seconds()
        with errors_in_one_line(), wakeup_on_stop_signals() as wakeup:
            pruned = self._prune(seconds, lambda _: wakeup.stop_requested)
            kept = count_kept(seconds)
        if options["json"]:
            self.write_json(_as_json(pruned, kept, wakeup.stop_requested))
        else:
            self.stdout.write(_as_text(pruned, kept))
        if wakeup.stop_requested:
            raise CommandError("Interrupted; the next call goes on.", returncode=INTERRUPTED)

    @staticmethod
    def _prune(seconds: float, should_stop: Any) -> Pruned:
        total = count_prunable(seconds) if sys.stderr.isatty() else None
        with progress_bar("rows", total) as bar:

            def show(pruned: Pruned) -> None:
                bar.show(pruned.rows, batches=pruned.batches)

            return prune_runs(seconds, on_progress=show, should_stop=should_stop)


def _as_text(pruned: Pruned, kept: int) -> str:
    runs, comparisons = number_of(pruned.runs, "run"), number_of(pruned.comparisons, "comparison")
    batches = number_of(pruned.batches, "batch", "batches")
    text = f"{runs} with {batches} and {comparisons} deleted."
    if kept:
        text += f" Kept, since somebody still waits for it: {number_of(kept, 'run')} as old."
    return text


def _as_json(pruned: Pruned, kept: int, interrupted: bool) -> PrunedRunsJson:
    return {
        "version": VERSION,
        "runs": pruned.runs,
        "batches": pruned.batches,
        "comparisons": pruned.comparisons,
        "kept_runs": kept,
        "interrupted": interrupted,
    }
