from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from typing_extensions import override

from morango_celery import recover_runs
from morango_celery.db.errors import is_infrastructure_error
from morango_celery.management.arguments import seconds, writable_file
from morango_celery.management.base import PipeSafeCommand
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.wakeup import wakeup_on_stop_signals
from morango_celery.printable import printable_lines


class Command(PipeSafeCommand):
    help = "Send again what no worker finished in time. Safe at any moment, on any number of machines."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--all",
            action="store_true",
            help="whatever is unfinished, however short ago it was sent (after Redis has lost its data)",
        )
        parser.add_argument(
            "--interval",
            type=seconds,
            metavar="SECONDS",
            help="do so again and again, until SIGTERM or Ctrl-C",
        )
        parser.add_argument(
            "--heartbeat-file",
            type=writable_file,
            metavar="FILE",
            help="a file whose time says when it last succeeded",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        interval, heartbeat_file, all_unfinished = (
            options["interval"],
            options["heartbeat_file"],
            options["all"],
        )
        if interval is None:
            with errors_in_one_line():
                self._recover(all_unfinished, heartbeat_file)
        elif all_unfinished:
            raise CommandError(
                "--all can't go with --interval: each round would send what is being executed."
            )
        else:
            self._go_on(interval, heartbeat_file)

    def _recover(self, all_unfinished: bool, heartbeat_file: Path | None) -> None:
        sent = recover_runs(all_unfinished=all_unfinished)
        self.stdout.write(f"{sent} messages sent.")
        if heartbeat_file:
            try:
                heartbeat_file.touch()
            except OSError as error:
                raise CommandError(f"The heartbeat file can't be touched: {error}") from error

    def _go_on(self, interval: float, heartbeat_file: Path | None) -> None:
        with errors_in_one_line(), wakeup_on_stop_signals() as wakeup:
            while not wakeup.stop_requested:
                try:
                    self._recover(False, heartbeat_file)
                except (DatabaseError, InterfaceError) as error:
                    if not is_infrastructure_error(error):
                        raise
                    self.stderr.write(f"{printable_lines(error)}\nNothing is lost; trying again.")
                    connection.close_if_unusable_or_obsolete()
                wakeup.wait(interval)
