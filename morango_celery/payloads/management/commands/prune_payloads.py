from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery.management.arguments import sha256
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.payloads import payload_store


class Command(PipeSafeCommand):
    help = (
        "Remove stored arguments of tasks whose time is up. "
        "Safe at any moment, any number of times; once a day will do."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--delete",
            type=sha256,
            metavar="SHA256",
            help="remove this payload instead, though messages may need it",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            if options["delete"]:
                deleted = payload_store().delete(options["delete"])
                self.stdout.write(f"{deleted} parts deleted.")
                return
            pruned = payload_store().prune()
        self.stdout.write(f"{pruned.blobs} payloads removed, {pruned.size_bytes:,} bytes.")
