"""JSON as it is stored: nearly always without anything around it."""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str) -> Any:
    """Read a JSON text. ``json.loads`` spends most of a short text's time on looking around the value.

    :raises ValueError: as `json.loads`
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else json.loads(text)


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed leaves it out
