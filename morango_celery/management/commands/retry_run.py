from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery import retry
from morango_celery.api import runs_in_process
from morango_celery.management.arguments import run_number
from morango_celery.management.run_command import RunCommand


class Command(RunCommand):
    help = "Do again what a run that has ended was to do, as a new run with its filter and options."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", type=run_number, help="the run's number")
        self.add_waiting(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        self.follow_run(
            options,
            lambda wait, on_progress: retry(options["run"], wait=wait, on_progress=on_progress),
            in_process=runs_in_process(),
        )
