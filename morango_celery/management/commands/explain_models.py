from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery.explanation import explain
from morango_celery.explanation.json_output import explanation_json
from morango_celery.explanation.text import as_text
from morango_celery.management.arguments import profile
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.printable import printable
from morango_celery.upstream import profiles


class Command(PipeSafeCommand):
    help = (
        "Explain how records of each syncable model are deserialized, in foreign key order: fast or slow, "
        "why (which code at which line, which field), and what would make it faster."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--profile", type=profile, help="the Morango profile, such as facilitydata; all when left out"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            wanted = [options["profile"]] if options["profile"] else profiles()
            explained = {name: explain(name) for name in wanted}
            if options["json"]:
                self.stdout.write(json.dumps(explanation_json(explained)))
                return
            for place, (name, models) in enumerate(explained.items()):
                lines = ([""] if place else []) + as_text(name, models)
                self.stdout.write("\n".join(map(printable, lines)))
