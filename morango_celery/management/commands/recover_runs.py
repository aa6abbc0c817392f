from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection

from morango_celery import recover_runs
from morango_celery.db.errors import is_infrastructure_error
from morango_celery.management.arguments import file_to_touch, seconds
from morango_celery.management.base import OwnCommand
from morango_celery.management.bell import stopping_bell
from morango_celery.management.carried_out import errors_in_one_line
from morango_celery.printable import printable_lines


class Command(OwnCommand):
    help = "Send again what no worker finished in time. Safe at any moment, on any number of machines."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--everything",
            action="store_true",
            help="whatever is unfinished, however short ago it was sent (after Redis has lost its data)",
        )
        parser.add_argument(
            "--every", type=seconds, metavar="SECONDS", help="do so again and again, until SIGTERM or Ctrl-C"
        )
        parser.add_argument(
            "--touch",
            type=file_to_touch,
            metavar="FILE",
            help="a file whose time says when it last succeeded",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        every, touched, everything = options["every"], options["touch"], options["everything"]
        if every is None:
            with errors_in_one_line():
                self._recover(everything, touched)
        elif everything:
            raise CommandError("--everything is for once: again and again, it sends what is being executed.")
        else:
            self._go_on(every, touched)

    def _recover(self, everything: bool, touched: Path | None) -> None:
        sent = recover_runs(everything=everything)
        self.stdout.write(f"{sent} messages sent.")
        if touched:
            try:
                touched.touch()
            except OSError as error:
                raise CommandError(f"The file can't be touched: {error}") from error

    def _go_on(self, every: float, touched: Path | None) -> None:
        with errors_in_one_line(), stopping_bell() as bell:
            while not bell.stop_requested:
                try:
                    self._recover(False, touched)
                except (DatabaseError, InterfaceError) as error:
                    if not is_infrastructure_error(error):
                        raise
                    self.stderr.write(f"{printable_lines(error)}\nNothing is lost; trying again.")
                    connection.close_if_unusable_or_obsolete()
                bell.wait(every)
