"""Output and exit statuses of a plugin for Nagios and Icinga."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from morango_celery.management.judgement import Kind, Problem

OK = 0
WARNING = 1
CRITICAL = 2
UNKNOWN = 3

STATUSES = {Kind.NO_WORKER: CRITICAL, Kind.STALLED: CRITICAL, Kind.FAILED: CRITICAL, Kind.LIMIT: WARNING}
"""Status of each kind of problem. Errors, unknown runs and wrong arguments are UNKNOWN."""

_WORDS = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}
SERVICE = "MORANGO_CELERY"


def status_of(problems: Sequence[Problem]) -> int:
    return max((STATUSES[problem.kind] for problem in problems), default=OK)


def lines(status: int, texts: Sequence[str], numbers: Mapping[str, float]) -> list[str]:
    """Return the lines of a plugin: status, first text and numbers, then the other texts.

    :param numbers: performance data; a name with the suffix ``_seconds`` gets its unit
    """
    first, *others = [text.replace("|", "/") for text in texts] or ["all is well"]
    data = " ".join(
        f"{name.removesuffix('_seconds')}={value:g}{'s' if name.endswith('_seconds') else ''};;;0"
        for name, value in numbers.items()
    )
    return [f"{SERVICE} {_WORDS[status]}: {first}{f' | {data}' if data else ''}", *others]
