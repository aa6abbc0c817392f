"""Types of the commands' arguments: nonsense is refused, with exit status 2."""

from __future__ import annotations

import math
import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from pathlib import Path

from morango_celery.api import require_profile
from morango_celery.errors import UsageError
from morango_celery.printable import printable
from morango_celery.reading.filters import parse_filter

MAX_SECONDS = 1e9
"""Some thirty years; the system and dates can't reckon with much more."""
MAX_ID = 2**63 - 1
MAX_LIST = 100_000
MAX_DAYS = 36_500
MAX_BATCH = 50_000
MAX_REASON_CHARACTERS = 200
MAX_NAME_BYTES = 2000
"""Size limit of an entry in an index of PostgreSQL's."""
_SHA256 = re.compile("[0-9a-f]{64}")
_AGE = re.compile("([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def seconds(text: str) -> float:
    """Return a time above 0, in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_SECONDS:  # nan is neither
        raise ArgumentTypeError(f"must be more than 0 seconds, and {MAX_SECONDS:.0f} at most")
    return value


def age(text: str) -> timedelta:
    """Return a time above 0 that is written with its unit, such as "90d"."""
    found = _AGE.fullmatch(text)
    if found:
        number, unit = found.groups()
        value = timedelta(**{_UNITS[unit]: int(number)})
        if timedelta() < value <= timedelta(days=MAX_DAYS):
            return value
    raise ArgumentTypeError("must be a number above 0 with s, m, h, d or w after it, such as 90d")


def time_or_age(text: str) -> datetime | timedelta:
    """Return a moment in ISO 8601, UTC if it names no zone; or a time before now, such as "24h"."""
    try:
        return age(text)
    except ArgumentTypeError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(
            "must be a time such as 2026-01-31T08:00, or a number with s, m, h, d or w after it, such as 24h"
        ) from None


def run_number(text: str) -> int:
    """Return the number of a run."""
    return _whole(text, MAX_ID)


def length_of_list(text: str) -> int:
    """Return how many rows a list may have."""
    return _whole(text, MAX_LIST)


def number_of_records(text: str) -> int:
    """Return a number of records."""
    return _whole(text, MAX_ID)


def limit(text: str) -> int:
    """Return a number of which more is too much."""
    return 0 if text == "0" else _whole(text, MAX_ID)


def days(text: str) -> int:
    """Return a number of days."""
    return _whole(text, MAX_DAYS)


def lines_at_a_time(text: str) -> int:
    """Return how many lines of a log are applied in one transaction."""
    return _whole(text, MAX_BATCH)


def profile(text: str) -> str:
    """Return the name of a profile that any installed app has models of."""
    try:
        require_profile(text)
    except UsageError as error:
        raise ArgumentTypeError(printable(error)) from error
    return text


def prefix(text: str) -> str:
    """Return a beginning of partitions."""
    try:
        parse_filter([text])
    except UsageError as error:
        raise ArgumentTypeError(printable(error)) from error
    return text


def add_profile_and_filter(parser: ArgumentParser, *, required: bool = True) -> None:
    """Add the options that choose records.

    :param required: whether there has to be a profile
    """
    parser.add_argument(
        "--profile", type=profile, required=required, help="the Morango profile, such as facilitydata"
    )
    parser.add_argument(
        "--filter",
        type=prefix,
        nargs="+",
        action="extend",
        metavar="PREFIX",
        help="only partitions that begin with one of these; the whole profile when left out",
    )


def reason(text: str) -> str:
    """Return the reason for a pause."""
    if not text.isprintable() or len(text) > MAX_REASON_CHARACTERS:
        raise ArgumentTypeError(f"must be a text of {MAX_REASON_CHARACTERS} printable characters at most")
    return text


def source_name(text: str) -> str:
    """Return a name under which a log's position is kept."""
    if not text.strip() or not text.isprintable():
        raise ArgumentTypeError("must be a text of printable characters")
    if len(text.encode()) > MAX_NAME_BYTES:
        raise ArgumentTypeError(f"must have no more than {MAX_NAME_BYTES} bytes")
    return text


def sha256(text: str) -> str:
    """Return the hash that a payload is stored by."""
    if not _SHA256.fullmatch(text):
        raise ArgumentTypeError("must be a SHA-256, as 64 hex digits in lower case")
    return text


def log_to_read(text: str) -> Path:
    """Return a path at which a log may be, now or later."""
    path = Path(text)
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long, say
        raise ArgumentTypeError(f"can't be a file: {printable(error)}") from error
    if not text:
        raise ArgumentTypeError("must be a file")
    if path.is_dir():
        raise ArgumentTypeError(f"{printable(str(path))} is a folder; a log consists of regular files")
    return path


def writable_file(text: str) -> Path:
    """Return a path at which a file is, or can be made."""
    path = Path(text)
    try:
        if not text or path.is_dir() or not path.absolute().parent.is_dir():
            raise ArgumentTypeError("must be a file, in a folder that exists")
    except (OSError, ValueError) as error:  # too long, say
        raise ArgumentTypeError(f"can't be a file: {printable(error)}") from error
    return path


def _whole(text: str, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= most:
        raise ArgumentTypeError(f"must be a whole number from 1 to {most}")
    return value
