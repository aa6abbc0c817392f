from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import CommandParser
from typing_extensions import override

from morango_celery.health.doctor import diagnose
from morango_celery.health.findings import Finding, Severity
from morango_celery.management.arguments import seconds
from morango_celery.management.base import PipeSafeCommand, exit_statuses
from morango_celery.management.results import VERSION, add_json
from morango_celery.printable import printable


class Command(PipeSafeCommand):
    help = "Look at all that runs need, and tell a remedy for everything that is wrong."

    exit_statuses = exit_statuses(
        {
            0: "nothing is wrong; there may be warnings",
            1: "there is an error, or something could not be looked at",
        }
    )

    requires_system_checks: list[str] = []  # they are among the findings, and mustn't keep others away

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        add_json(parser)
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=5.0,
            metavar="SECONDS",
            help="time limit for each look (default: 5)",
        )

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        found: list[Finding] = []
        for finding in diagnose(options["timeout"]):
            found.append(finding)
            if not options["json"]:
                self.stdout.write(_line(finding))
        is_healthy = all(finding.severity is not Severity.ERROR for finding in found)
        if options["json"]:
            findings = [
                {
                    "check": finding.check,
                    "severity": finding.severity.value,
                    "text": finding.text,
                    "remedy": finding.remedy or None,
                }
                for finding in found
            ]
            report = {"version": VERSION, "healthy": is_healthy, "findings": findings}
            self.write_json(report)
        if not is_healthy:
            sys.exit(1)


def _line(finding: Finding) -> str:
    """Return like "ERROR    broker      redis://... doesn't answer. See that the broker runs ..."."""
    severity = finding.severity.value
    word = severity if finding.severity is Severity.OK else severity.upper()
    text = printable(f"{finding.text.rstrip('.')}. {finding.remedy}" if finding.remedy else finding.text)
    return f"{word:<7}  {finding.check:<10}  {text}"
