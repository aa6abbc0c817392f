"""Types of the commands' arguments: nonsense is refused, with exit status 2."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from pathlib import Path

LONGEST_SECONDS = 1e9
"""Some thirty years; what the system and dates can reckon with."""
LARGEST_ID = 2**63 - 1
LONGEST_LIST = 100_000
MOST_DAYS = 36_500


def seconds(text: str) -> float:
    """Return a time above 0, in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_SECONDS:  # nan is neither
        raise ArgumentTypeError(f"must be more than 0 seconds, and {LONGEST_SECONDS:.0f} at most")
    return value


def run_number(text: str) -> int:
    """Return the number of a run."""
    return _whole(text, LARGEST_ID)


def length_of_list(text: str) -> int:
    """Return how many rows a list may have."""
    return _whole(text, LONGEST_LIST)


def days(text: str) -> int:
    """Return a number of days."""
    return _whole(text, MOST_DAYS)


def file_to_touch(text: str) -> Path:
    """Return a path at which a file is, or can be made."""
    path = Path(text)
    try:
        if not text or path.is_dir() or not path.absolute().parent.is_dir():
            raise ArgumentTypeError("must be a file, in a folder that exists")
    except (OSError, ValueError) as error:  # too long, say
        raise ArgumentTypeError(f"can't be a file: {error}") from error
    return path


def _whole(text: str, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= most:
        raise ArgumentTypeError(f"must be a whole number from 1 to {most}")
    return value
