from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from typing_extensions import override

from morango_celery.db.errors import is_infrastructure_error
from morango_celery.management.arguments import lines_at_a_time, log_to_read, source_name
from morango_celery.management.base import PipeSafeCommand, exit_statuses
from morango_celery.management.progress import ProgressBar, progress_bar
from morango_celery.management.results import VERSION, IngestedJson, RetriedJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.wakeup import Wakeup, wakeup_on_stop_signals
from morango_celery.oplog.files import signature
from morango_celery.oplog.follow import LOOK_SECONDS, watching
from morango_celery.oplog.ingest import BATCH_LINES, Ingestion, IngestionProgress
from morango_celery.oplog.lines import printable
from morango_celery.oplog.regular import SpecialFileError
from morango_celery.oplog.retry import retry_dead_letters
from morango_celery.printable import printable_lines

MAX_PAUSE_SECONDS = 30.0
"""Between two attempts to reach a database that is not available."""


class Command(PipeSafeCommand):
    help = "Apply the objects that a log brings, from where it was last read to; see docs/how-to/oplog.md."

    exit_statuses = exit_statuses(
        {
            0: "done; lines that could not be applied are dead letters",
            1: "it failed, and the last line says why; or --retry-dead-letters has left some",
        }
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            nargs="?",
            type=log_to_read,
            metavar="FILE",
            help="the log; what was rotated away from it is found beside it",
        )
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--follow", action="store_true", help="wait for more until SIGTERM or Ctrl-C")
        mode.add_argument("--once", action="store_true", help="read what is there and end, as by default")
        mode.add_argument(
            "--retry-dead-letters", action="store_true", help="try lines again that couldn't be applied"
        )
        parser.add_argument(
            "--batch-size",
            type=lines_at_a_time,
            default=BATCH_LINES,
            metavar="N",
            help="lines that are applied in one transaction (default: %(default)s)",
        )
        parser.add_argument(
            "--source",
            type=source_name,
            metavar="NAME",
            help="what the log's position goes by (default: the file's full path)",
        )
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["file"]).absolute() if options["file"] else None
        source = options["source"] or (printable(str(path)) if path else None)
        if options["retry_dead_letters"]:
            with errors_in_one_line():
                self._retry(source, options["json"])
            return
        if path is None or source is None:
            raise CommandError("Name the file to read.", returncode=2)
        with (
            errors_in_one_line(),
            wakeup_on_stop_signals() as wakeup,
            progress_bar("B", is_size=True) as bar,
        ):
            ingestion = Ingestion(
                path,
                source,
                options["batch_size"],
                should_stop=lambda: wakeup.stop_requested,
                on_progress=lambda progress: _show(bar, progress),
            )
            try:
                if options["follow"]:
                    self._follow(ingestion, wakeup)
                elif not signature(path):
                    raise CommandError(f"There is no file {path}. With --follow it is waited for.")
                else:
                    ingestion.read_on()
            except OSError as error:
                raise CommandError(f"The log can't be read: {error}") from error
        self._summarize(ingestion.progress, options["json"])

    def _follow(self, ingestion: Ingestion, wakeup: Wakeup) -> None:
        pause_seconds = LOOK_SECONDS
        seen = None
        with watching(ingestion.path.parent, wakeup) as watch:
            while not wakeup.stop_requested:
                watch.ensure()
                try:
                    found = signature(ingestion.path)
                    if found != seen:
                        ingestion.read_on()
                        seen = found
                    pause_seconds = LOOK_SECONDS
                except SpecialFileError:
                    raise  # it won't become a log by waiting
                except (DatabaseError, InterfaceError, OSError) as error:
                    if not isinstance(error, OSError) and not is_infrastructure_error(error):
                        raise
                    self.stderr.write(f"{printable_lines(error)}\nNothing is lost; trying again.")
                    connection.close_if_unusable_or_obsolete()
                    pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)
                wakeup.wait(pause_seconds)

    def _retry(self, source: str | None, as_json: bool) -> None:
        retried = retry_dead_letters(source)
        if as_json:
            result: RetriedJson = {"version": VERSION, "applied": retried.applied, "left": retried.left}
            self.write_json(result)
        else:
            self.stdout.write(f"{retried.applied} dead letters applied, {retried.left} still can't be.")
        if retried.left:
            sys.exit(1)

    def _summarize(self, progress: IngestionProgress, as_json: bool) -> None:
        if as_json:
            result: IngestedJson = {
                "version": VERSION,
                "lines": progress.lines,
                "applied": progress.lines - progress.dead_letters,
                "dead_letters": progress.dead_letters,
                "dead_letters_applied": progress.dead_letters_applied,
            }
            self.write_json(result)
            return
        self.stdout.write(
            f"{progress.lines} lines: {progress.lines - progress.dead_letters} applied, "
            f"{progress.dead_letters} became dead letters, "
            f"{progress.dead_letters_applied} earlier ones were applied."
        )
        if progress.dead_letters:
            self.stdout.write("The admin shows why; --retry-dead-letters tries them again.")


def _show(bar: ProgressBar, progress: IngestionProgress) -> None:
    bar.show(progress.bytes_read, progress.bytes_in_all, lines=progress.lines, dead=progress.dead_letters)
