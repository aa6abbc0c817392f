"""Conversion of values to bytes, and back.

Celery's own JSON does it. So a stored value comes back exactly as it would from inside a message, times,
decimals, UUIDs and the order of an object's keys included.
"""

from __future__ import annotations

import hashlib
from typing import Any

from kombu.utils.json import dumps, loads

from morango_celery.reading.jsontext import read_json

_TYPED = b'"__type__"'


def canonical(value: Any) -> bytes:
    """Return a value's canonical bytes: the same for equal values whose keys are in the same order.

    :raises TypeError, ValueError: JSON has nothing for it
    """
    text: str = dumps(value, separators=(",", ":"))  # type: ignore[no-untyped-call]  # kombu's
    return text.encode("ascii")


def fresh(data: bytes) -> Any:
    """Return a new value that no one shares."""
    # kombu's parser calls a function for each object, to find types that JSON lacks
    return loads(data) if _TYPED in data else read_json(data.decode())  # type: ignore[no-untyped-call]  # kombu's


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
