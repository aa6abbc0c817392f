"""Findings of the command ``doctor``: one line each, with a remedy where one is needed."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """The result of one look."""

    check: str
    """Subject of the look, in a word."""
    severity: Severity
    text: str
    remedy: str = ""
    prevents: tuple[str, ...] = ()
    """Subjects of looks that would only find the same."""
