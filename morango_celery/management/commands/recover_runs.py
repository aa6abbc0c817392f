from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from morango_celery import recover_runs


class Command(BaseCommand):
    help = "Send again what no worker finished in time. Safe at any moment, on any number of machines."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--everything",
            action="store_true",
            help="whatever is unfinished, however short ago it was sent (after Redis has lost its data)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        sent = recover_runs(everything=options["everything"])
        self.stdout.write(f"{sent} messages sent.")
