from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from typing_extensions import override

from morango_celery.comparison import Report, Request, compare
from morango_celery.comparison.estimate import estimate
from morango_celery.comparison.selection import DEFAULT_SAMPLE_RECORDS
from morango_celery.db.dialect import dialect
from morango_celery.errors import ComparisonError
from morango_celery.management.arguments import add_profile_and_filter, number_of_records, seconds
from morango_celery.management.base import INTERRUPTED, WRONG_ARGUMENTS, PipeSafeCommand, exit_statuses
from morango_celery.management.comparison_text import as_text
from morango_celery.management.formatting import duration
from morango_celery.management.progress import progress_bar
from morango_celery.management.run_command import errors_in_one_line
from morango_celery.management.unknown_prefixes import warn_of_unknown_prefixes
from morango_celery.management.wakeup import wakeup_on_stop_signals
from morango_celery.reading.filters import parse_filter

DIFFERENT = 1
NOT_COMPARED = 3

SECONDS = 60.0
"""Longest time for which syncs are blocked, if no other is allowed."""


class Command(PipeSafeCommand):
    help = (
        "Deserialize the same records by Morango's own function and by morango_celery, compare all that they "
        "leave, and roll everything back."
    )

    exit_statuses = exit_statuses(
        {
            0: "the results are the same, or differ as docs/fidelity.md says",
            DIFFERENT: "a difference was found",
            NOT_COMPARED: "it could not be compared, or would block syncs for too long",
            INTERRUPTED: "interrupted by Ctrl-C; everything was rolled back",
        }
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add_profile_and_filter(parser)
        parser.add_argument(
            "--records", type=number_of_records, metavar="N", help="take so many records, and their targets"
        )
        parser.add_argument(
            "--replay",
            action="store_true",
            help="take clean records of each model as well, with all that they refer to, as if they had just "
            f"arrived (default of --records then: {DEFAULT_SAMPLE_RECORDS:,})",
        )
        parser.add_argument("--json", action="store_true", help="write the report as JSON")
        parser.add_argument("--show-values", action="store_true", help="show the values that differ, too")
        parser.add_argument(
            "--seconds",
            type=seconds,
            help=f"how long syncs may be blocked (default: {SECONDS:.0f}; with --database, no limit)",
        )
        parser.add_argument(
            "--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="a restored backup in DATABASES"
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        request = Request(
            profile=options["profile"],
            sync_filter=parse_filter(options["filter"]),
            records=options["records"],
            replay=options["replay"],
            seconds=options["seconds"] or (SECONDS if options["database"] == DEFAULT_DB_ALIAS else None),
            show_values=options["show_values"],
        )
        try:
            with (
                _as_default(options["database"]),
                errors_in_one_line(),
                wakeup_on_stop_signals() as wakeup,
            ):
                warn_of_unknown_prefixes(self.stderr, options["profile"], options["filter"])
                report = self._compare(request, lambda: wakeup.stop_requested)
        except KeyboardInterrupt:
            self.stderr.write("Interrupted. Everything was rolled back.")
            sys.exit(INTERRUPTED)
        except CommandError as error:
            if isinstance(error.__cause__, ComparisonError):
                raise CommandError(str(error), returncode=NOT_COMPARED) from error
            raise
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json()))
        else:
            for line in as_text(report):
                self.stdout.write(line)
        if report.differences:
            sys.exit(DIFFERENT)

    def _compare(self, request: Request, is_stopped: Callable[[], bool]) -> Report:
        expected = estimate(request, is_stopped)
        needed = f", for about {duration(expected.seconds)}" if expected.seconds else ""
        self.stderr.write(f"Comparing {expected.records:,} records. {_locks(request)}{needed}. {_LEFT}")
        if request.seconds and (expected.seconds or 0) > request.seconds:
            raise ComparisonError(
                f"That is longer than {duration(request.seconds)}, for which syncs may be blocked. Take "
                "fewer records (--records), allow more time (--seconds), or compare on a restored backup "
                "(--database)."
            )
        with progress_bar("records", 2 * expected.records) as bar:

            def show(side: str, done: int) -> None:
                bar.show(done + (expected.records if side == "Morango" else 0), label=side)  # ours is first

            return compare(request, show, is_stopped)


_LEFT = (
    "Then everything is rolled back, but for numbers that sequences have given, and for what models' own "
    "code does outside of the database."
)


def _locks(request: Request) -> str:
    """Return who has to wait meanwhile, in words."""
    if dialect().has_one_writer:
        return "Nobody else can write to the database meanwhile"
    whose = "any facility" if request.sync_filter is None else "the facilities in the filter"
    return f"Syncs of {whose} wait meanwhile, and so does who writes to the same rows"


@contextmanager
def _as_default(alias: str) -> Iterator[None]:
    """Let Morango, which knows the default database alone, find another one under its name."""
    if alias == DEFAULT_DB_ALIAS:
        yield
        return
    known = connections.databases
    if alias not in known:
        raise CommandError(
            f"DATABASES has no {alias!r}. There are: {', '.join(sorted(known))}.", returncode=WRONG_ARGUMENTS
        )
    default = known[DEFAULT_DB_ALIAS]
    if known[alias]["ENGINE"] != default["ENGINE"]:
        raise CommandError(
            f"{alias!r} is of another kind than the default database, and Morango is set up for that one.",
            returncode=WRONG_ARGUMENTS,
        )
    before = connections[DEFAULT_DB_ALIAS]
    known[DEFAULT_DB_ALIAS] = known[alias]
    del connections[DEFAULT_DB_ALIAS]
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS].close()
        known[DEFAULT_DB_ALIAS] = default
        connections[DEFAULT_DB_ALIAS] = before
