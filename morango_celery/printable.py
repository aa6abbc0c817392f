"""Texts from data, made harmless for logs and terminals."""

from __future__ import annotations

import re
from contextlib import suppress

MAX_CHARACTERS = 2000
MAX_LINES = 20

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, surrogates, line separators, and marks that change the direction of writing."""


def printable(text: object, most: int = MAX_CHARACTERS) -> str:
    """Return a text in one line, cut, with escapes for characters that a terminal would obey.

    :param most: number of characters that are shown; the text then ends with the number of the others
    """
    whole = str(text)
    shown = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], whole[:most])
    return shown if len(whole) <= most else f"{shown}[... {len(whole) - most:,} more characters]"


def printable_lines(text: object, most_lines: int = MAX_LINES) -> str:
    """Return a text of several lines, each of them `printable`.

    :param most_lines: number of lines that are shown; the text then ends with the number of the others
    """
    lines = str(text).strip().split("\n")
    shown = [printable(line) for line in lines[:most_lines]]
    if len(lines) > most_lines:
        shown.append(f"[... {len(lines) - most_lines:,} more lines]")
    return "\n".join(shown)


def make_printable(error: BaseException) -> None:
    """Make the texts of an error, of its causes and of its contexts `printable`, by changing their arguments.

    It is for errors that other code logs with their traceback, as Celery logs those of tasks.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        with suppress(Exception):  # a project's own class may refuse it
            one.args = tuple(printable_lines(each) if isinstance(each, str) else each for each in one.args)
        waiting += [one.__cause__, one.__context__]
