from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery import pause
from morango_celery.management.arguments import add_profile_and_filter, reason
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.results import VERSION, PausedJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.unknown_prefixes import warn_of_unknown_prefixes
from morango_celery.runs.status import paused


class Command(PipeSafeCommand):
    help = (
        "Let syncs wait in the ledger: nothing more is begun, and batches that have begun are completed. "
        "Without options, this holds all runs."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add_profile_and_filter(parser, required=False)
        parser.add_argument(
            "--reason", type=reason, default="", metavar="TEXT", help="shown to operators until it ends"
        )
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        warn_of_unknown_prefixes(self.stderr, options["profile"], options["filter"])
        with errors_in_one_line():
            made = pause(options["profile"], options["filter"], reason=options["reason"])
            waiting = paused().count()
        if options["json"]:
            result: PausedJson = {"version": VERSION, "scope": made.scope, "waiting": waiting}
            self.write_json(result)
            return
        self.stdout.write(
            f"Paused: {made.scope}. {waiting:,} unfinished {'run waits' if waiting == 1 else 'runs wait'}; "
            "`manage.py resume_runs` ends it."
        )
