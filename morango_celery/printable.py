"""Texts that come from data, as a log or a terminal may show them."""

from __future__ import annotations

import re
from contextlib import suppress

MOST_CHARACTERS = 2000
MOST_LINES = 20

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, half characters, line separators, and what changes the direction of writing."""


def printable(text: object, most: int = MOST_CHARACTERS) -> str:
    """Return a text in one line, with what a terminal would obey escaped, and cut.

    :param most: characters that are shown; how many more there are is said
    """
    whole = str(text)
    shown = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], whole[:most])
    return shown if len(whole) <= most else f"{shown}[... {len(whole) - most:,} more characters]"


def printable_lines(text: object, most_lines: int = MOST_LINES) -> str:
    """Return a text of several lines, each of them `printable`.

    :param most_lines: that are shown; how many more there are is said
    """
    lines = str(text).strip().split("\n")
    shown = [printable(line) for line in lines[:most_lines]]
    if len(lines) > most_lines:
        shown.append(f"[... {len(lines) - most_lines:,} more lines]")
    return "\n".join(shown)


def make_printable(error: BaseException) -> None:
    """Make the texts `printable` that an error, and what it was raised for, say in a traceback.

    For errors that somebody else logs, as Celery does with those of tasks. The errors are changed.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        with suppress(Exception):  # what a project's own class has against it
            one.args = tuple(printable_lines(each) if isinstance(each, str) else each for each in one.args)
        waiting += [one.__cause__, one.__context__]
