from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from typing_extensions import override

from morango_celery.api import deserialize, require_model, runs_in_process
from morango_celery.conf import require_valid
from morango_celery.management.arguments import add_profile_and_filter
from morango_celery.management.base import WRONG_ARGUMENTS
from morango_celery.management.dry_run_output import as_lines, dry_run_json
from morango_celery.management.run_command import RunCommand, errors_in_one_line
from morango_celery.management.unknown_prefixes import warn_of_unknown_prefixes
from morango_celery.reading.filters import parse_filter
from morango_celery.runs.dry_run import dry_run


class Command(RunCommand):
    help = "Deserialize the dirty Store records of a profile, by Celery workers or in this process."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add_profile_and_filter(parser)
        errors = parser.add_mutually_exclusive_group()
        errors.add_argument(
            "--skip-erroring", action="store_true", help="leave out records that are in error already"
        )
        errors.add_argument(
            "--retry-errors", action="store_true", help="only records that are in error already"
        )
        parser.add_argument(
            "--only-model", default="", metavar="NAME", help="with --retry-errors: of the model of this name"
        )
        parser.add_argument(
            "--only-exception",
            default="",
            metavar="EXCEPTION",
            help="with --retry-errors: in error with this exception, such as IntegrityError",
        )
        parser.add_argument("--in-process", action="store_true", help="work here, without Celery")
        self.add_waiting(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="only say what a run would do, and write nothing"
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if (options["only_model"] or options["only_exception"]) and not options["retry_errors"]:
            raise CommandError(
                "--only-model and --only-exception need --retry-errors.", returncode=WRONG_ARGUMENTS
            )
        warn_of_unknown_prefixes(self.stderr, options["profile"], options["filter"])
        if options["dry_run"]:
            self._foretell(options)
            return
        in_process = options["in_process"] or runs_in_process()
        self.follow_run(
            options,
            lambda wait, on_progress: deserialize(
                options["profile"],
                options["filter"],
                skip_erroring=options["skip_erroring"],
                retry_errors=options["retry_errors"],
                only_model=options["only_model"],
                only_exception=options["only_exception"],
                wait=wait,
                in_process=in_process,
                on_progress=on_progress,
            ),
            in_process=in_process,
        )

    def _foretell(self, options: dict[str, Any]) -> None:
        if options["wait"]:
            raise CommandError("--dry-run starts no run to --wait for.", returncode=WRONG_ARGUMENTS)
        with errors_in_one_line():
            require_valid()
            require_model(options["profile"], options["only_model"])
            found = dry_run(
                options["profile"],
                parse_filter(options["filter"]),
                skip_erroring=options["skip_erroring"],
                retry_errors=options["retry_errors"],
                only_model=options["only_model"],
                only_exception=options["only_exception"],
                in_process=options["in_process"] or runs_in_process(),
            )
        lines = [json.dumps(dry_run_json(found))] if options["json"] else as_lines(found)
        self.stdout.write("\n".join(lines))
