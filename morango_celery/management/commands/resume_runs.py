from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery import resume
from morango_celery.management.arguments import add_profile_and_filter
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.results import VERSION, ResumedJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.runs.pausing import in_force, in_words


class Command(PipeSafeCommand):
    help = "End pauses, and send what has waited. Without options, this ends all of them."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add_profile_and_filter(parser, required=False)
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            resumed = resume(options["profile"], options["filter"])
            left = in_force()
        if options["json"]:
            result: ResumedJson = {"version": VERSION, "runs": resumed, "pauses": len(left)}
            self.write_json(result)
            return
        runs = "1 run goes" if len(resumed) == 1 else f"{len(resumed):,} runs go"
        self.stdout.write(f"{runs} on. {in_words(left)}")
