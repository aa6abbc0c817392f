from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.db.models import Model
from typing_extensions import override

from morango_celery.deserialization.locks import take_write_lock
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.progress import progress_bar
from morango_celery.management.results import VERSION, RecordedJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.oplog.conf import settings
from morango_celery.oplog.logfile import write_out
from morango_celery.oplog.meta import rows
from morango_celery.oplog.order import place
from morango_celery.oplog.recorder import record_stored, recorded_models

CHUNK_OBJECTS = 1000


class Command(PipeSafeCommand):
    help = "Write recorded changes to the log that wait for it; with --existing, all objects there are."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--existing",
            action="store_true",
            help="record every object of the recorded models: what was there before they were recorded",
        )
        add_json(parser)

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.FILE:
            raise CommandError("MORANGO_CELERY_OPLOG['FILE'] doesn't say where the log is.")
        lines = 0
        with errors_in_one_line():
            try:
                if options["existing"]:
                    with progress_bar("objects") as bar:
                        for model in sorted(recorded_models(), key=place):
                            for recorded in _record_all(model):
                                lines += recorded
                                bar.show(lines)
                lines += write_out()
            except OSError as error:
                raise CommandError(f"The log can't be written: {error}") from error
        if options["json"]:
            result: RecordedJson = {"version": VERSION, "lines": lines, "file": str(settings.FILE)}
            self.write_json(result)
            return
        self.stdout.write(f"{lines} lines written to {settings.FILE}.")


def _record_all(model: type[Model]) -> Iterator[int]:
    """Record the objects of a model in steps, each locked until its lines are committed: a change of one of
    them comes before its line or behind it, but not in between."""
    last = None
    while True:
        with transaction.atomic():
            take_write_lock()
            found = rows(model).order_by("pk").values_list("pk", flat=True)
            keys = list((found if last is None else found.filter(pk__gt=last))[:CHUNK_OBJECTS])
            record_stored(model, keys)
        if not keys:
            return
        last = keys[-1]
        yield len(keys)
