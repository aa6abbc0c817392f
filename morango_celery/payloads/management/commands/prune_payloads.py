from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery.management.arguments import sha256
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.progress import progress_bar
from morango_celery.management.results import VERSION, DeletedPayloadJson, PrunedPayloadsJson, add_json
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
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        with errors_in_one_line():
            if options["delete"]:
                self._delete(options["delete"], options["json"])
                return
            with progress_bar("payloads") as bar:
                pruned = payload_store().prune(lambda so_far: bar.show(so_far.blobs))
        if options["json"]:
            result: PrunedPayloadsJson = {
                "version": VERSION,
                "payloads": pruned.blobs,
                "size_bytes": pruned.size_bytes,
            }
            self.write_json(result)
            return
        self.stdout.write(f"{pruned.blobs} payloads removed, {pruned.size_bytes:,} bytes.")

    def _delete(self, key: str, as_json: bool) -> None:
        deleted = payload_store().delete(key)
        if as_json:
            result: DeletedPayloadJson = {"version": VERSION, "parts": deleted}
            self.write_json(result)
        else:
            self.stdout.write(f"{deleted} parts deleted.")
