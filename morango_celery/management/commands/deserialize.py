from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery.api import deserialize, runs_in_process
from morango_celery.management.arguments import prefix, profile
from morango_celery.management.run_command import RunCommand


class Command(RunCommand):
    help = "Deserialize the dirty Store records of a profile, by Celery workers or in this process."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--profile", type=profile, required=True, help="the Morango profile, such as facilitydata"
        )
        parser.add_argument(
            "--filter",
            type=prefix,
            nargs="+",
            action="extend",
            metavar="PREFIX",
            help="only partitions that begin with one of these; the whole profile when left out",
        )
        errors = parser.add_mutually_exclusive_group()
        errors.add_argument(
            "--skip-erroring", action="store_true", help="leave out records that are in error already"
        )
        errors.add_argument(
            "--retry-errors", action="store_true", help="only records that are in error already"
        )
        parser.add_argument("--in-process", action="store_true", help="work here, without Celery")
        parser.add_argument("--wait", action="store_true", help="wait for the workers, showing progress")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        self.follow_run(
            lambda on_progress: deserialize(
                options["profile"],
                options["filter"],
                skip_erroring=options["skip_erroring"],
                retry_errors=options["retry_errors"],
                wait=options["wait"],
                in_process=options["in_process"] or runs_in_process(),
                on_progress=on_progress,
            )
        )
