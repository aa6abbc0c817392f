from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from typing_extensions import override

from morango_celery.management.arguments import days
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.progress import progress_bar
from morango_celery.management.results import VERSION, PrunedOplogJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.oplog.pruning import prune


class Command(PipeSafeCommand):
    help = (
        "Remove dead letters that were applied or superseded, and positions in logs that are gone, after "
        "some days. Safe at any moment, any number of times; once a day will do."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days", type=days, required=True, metavar="N", help="how long these are kept, in days"
        )
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line(), progress_bar("dead letters") as bar:
            try:
                pruned = prune(options["days"], bar.show)
            except OSError as error:
                raise CommandError(f"The folder of a log can't be read: {error}") from error
        if options["json"]:
            result: PrunedOplogJson = {
                "version": VERSION,
                "letters": pruned.letters,
                "positions": pruned.positions,
            }
            self.write_json(result)
            return
        self.stdout.write(f"{pruned.letters} dead letters and {pruned.positions} positions removed.")
