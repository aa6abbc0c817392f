from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from typing_extensions import override

from morango_celery.api import recover_and_count
from morango_celery.db.errors import is_infrastructure_error
from morango_celery.management.arguments import seconds, writable_file
from morango_celery.management.base import WRONG_ARGUMENTS, PipeSafeCommand, exit_statuses
from morango_celery.management.formatting import number_of
from morango_celery.management.results import VERSION, RecoveredJson, add_json
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.wakeup import wakeup_on_stop_signals
from morango_celery.printable import printable_lines


class Command(PipeSafeCommand):
    help = "Send again what no worker finished in time. Safe at any moment, on any number of machines."

    exit_statuses = exit_statuses(
        {1: "it failed, and the last line says why: the broker can't be reached, say, and messages wait"}
    )

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
        add_json(parser, "write the numbers of messages as a line of JSON for each look")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if options["interval"] is None:
            with errors_in_one_line():
                if not self._recover(options):
                    sys.exit(1)
        elif options["all"]:
            raise CommandError(
                "--all can't go with --interval: each round would send what is being executed.",
                returncode=WRONG_ARGUMENTS,
            )
        else:
            self._go_on(options)

    def _recover(self, options: dict[str, Any]) -> bool:
        """Return False if messages wait that no broker takes."""
        found = recover_and_count(all_unfinished=options["all"])
        if options["json"]:
            result: RecoveredJson = {"version": VERSION, "sent": found.sent, "waiting": found.waiting}
            self.write_json(result)
        else:
            self.stdout.write(f"{number_of(found.sent, 'message')} sent.")
        if not found.waiting:
            _touch(options["heartbeat_file"])
            return True
        messages = f"{number_of(found.waiting, 'message')} {'waits' if found.waiting == 1 else 'wait'}"
        self.stderr.write(
            f"The broker can't be reached: {messages} in the ledger. Nothing is lost; once it is back, "
            "workers and this command send them."
        )
        return False

    def _go_on(self, options: dict[str, Any]) -> None:
        with errors_in_one_line(), wakeup_on_stop_signals() as wakeup:
            while not wakeup.stop_requested:
                try:
                    self._recover(options)
                except (DatabaseError, InterfaceError) as error:
                    if not is_infrastructure_error(error):
                        raise
                    self.stderr.write(f"{printable_lines(error)}\nNothing is lost; trying again.")
                    connection.close_if_unusable_or_obsolete()
                wakeup.wait(options["interval"])


def _touch(heartbeat_file: Path | None) -> None:
    if heartbeat_file is None:
        return
    try:
        heartbeat_file.touch()
    except OSError as error:
        raise CommandError(f"The heartbeat file can't be touched: {error}") from error
