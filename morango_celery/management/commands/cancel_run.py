from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery import cancel
from morango_celery.management.arguments import run_number
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.json_output import run_json
from morango_celery.management.results import add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.runs.status import status_of


class Command(PipeSafeCommand):
    help = "End a run. What it has not done stays dirty, for the next one or for retry_run."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", type=run_number, help="the run's number")
        parser.add_argument(
            "--of-newer-version",
            action="store_true",
            help="also one that a newer version of morango_celery has written, and whose workers are gone",
        )
        add_json(parser, "write the run as a line of JSON")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            run = cancel(options["run"], of_newer_version=options["of_newer_version"])
            if options["json"]:
                self.write_json(run_json(status_of(run.pk)))
                return
        self.stdout.write(
            f"Run {run.pk} is cancelled; {run.done} of {run.records} records that were handed out are done."
        )
