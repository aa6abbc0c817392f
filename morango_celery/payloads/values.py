"""Values as bytes, and back.

By Celery's own JSON, so that what was stored comes back just as what travelled inside a message does: times,
decimals and UUIDs included, and the order of an object's keys, too.
"""

from __future__ import annotations

import hashlib
from typing import Any

from kombu.utils.json import dumps, loads

from morango_celery.reading.jsontext import read_json

_TYPED = b'"__type__"'


def canonical(value: Any) -> bytes:
    """The bytes that a value is known by: equal ones for equal values whose keys are in the same order.

    :raises TypeError, ValueError: JSON has nothing for it
    """
    text: str = dumps(value, separators=(",", ":"))  # type: ignore[no-untyped-call]  # kombu's
    return text.encode("ascii")


def fresh(data: bytes) -> Any:
    """A new value, that nobody else has."""
    # Kombu's has a function of Python's called for each object, to find what JSON has no type for
    return loads(data) if _TYPED in data else read_json(data.decode())  # type: ignore[no-untyped-call]  # kombu's


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
