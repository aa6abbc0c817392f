"""Texts that come from data, as a log or a terminal may show them."""

from __future__ import annotations

import re

MOST_CHARACTERS = 2000

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
