from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError
from tqdm import tqdm

from morango_celery.api import deserialize, runs_in_process
from morango_celery.errors import MorangoCeleryError
from morango_celery.models import Run
from morango_celery.runs.report import failures


class Command(BaseCommand):
    help = "Deserialize the dirty Store records of a profile, by Celery workers or in this process."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--profile", required=True, help="the Morango profile, such as facilitydata")
        parser.add_argument(
            "--filter",
            nargs="+",
            action="extend",
            metavar="PREFIX",
            help="only partitions that begin with one of these; the whole profile when left out",
        )
        parser.add_argument(
            "--skip-erroring", action="store_true", help="leave out records that are in error already"
        )
        parser.add_argument("--in-process", action="store_true", help="work here, without Celery")
        parser.add_argument("--wait", action="store_true", help="wait for the workers, showing progress")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            in_process = options["in_process"] or runs_in_process()
            with tqdm(unit=" records", disable=not sys.stderr.isatty()) as bar:
                run = deserialize(
                    options["profile"],
                    options["filter"],
                    skip_erroring=options["skip_erroring"],
                    wait=options["wait"],
                    in_process=in_process,
                    on_progress=lambda run: _show(bar, run),
                )
        except MorangoCeleryError as error:
            raise CommandError(str(error)) from error
        except (OperationalError, ProgrammingError, InterfaceError) as error:
            raise CommandError(f"{str(error).strip()}\n{_remedy(error)}") from error
        if not run.is_finished:
            self.stdout.write(
                f"Run {run.pk} is in the ledger; workers take it from here."
                if run.sent_at
                else f"Run {run.pk} is in the ledger, but the broker can't be reached. Once it is back, "
                "`manage.py recover_runs` sends it."
            )
            return
        self._summarize(run)

    def _summarize(self, run: Run) -> None:
        assert run.finished_at is not None
        seconds = max((run.finished_at - run.created_at).total_seconds(), 0.001)
        self.stdout.write(
            f"Run {run.pk}: {run.records} records in {seconds:.1f} s ({run.records / seconds:.0f} a second): "
            f"{run.saved} saved, {run.deleted} deleted, {run.spread} deleted with what they refer to, "
            f"{run.yielded} gave way to local edits, {run.failed} failed."
        )
        if not run.failed:
            return
        for group in failures(run):
            self.stdout.write(f"  {group.count} x {group.model_name}: {group.exception}")
            self.stdout.write(f"      e.g. {group.example_id}: {group.example_error}")
        sys.exit(1)


def _remedy(error: DatabaseError | InterfaceError) -> str:
    if isinstance(error, ProgrammingError) or "no such table" in str(error):
        return "The database lacks tables or columns of this version: run `manage.py migrate`."
    return (
        "The database is not available. Nothing is half done. "
        "See that it runs and that DATABASES in the settings points at it, then try again."
    )


def _show(bar: tqdm[Any], run: Run) -> None:
    """The total grows as stages are opened; what it is at the end isn't known before."""
    bar.total = run.records
    bar.n = run.done
    bar.set_postfix(stage=run.stage, failed=run.failed, refresh=False)
    bar.refresh()
