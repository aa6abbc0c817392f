from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery import cancel
from morango_celery.management.arguments import run_number
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.run_command import errors_in_one_line


class Command(PipeSafeCommand):
    help = "End a run. What it has not done stays dirty, for the next one or for retry_run."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", type=run_number, help="the run's number")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            run = cancel(options["run"])
        self.stdout.write(
            f"Run {run.pk} is cancelled; {run.done} of {run.records} records that were handed out are done."
        )
