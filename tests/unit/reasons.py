"""Reasons against the fast path: their places in files, and their remedies."""

from __future__ import annotations

from typing import Any

from morango_celery.deserialization.parse import instance_reasons
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.explanation.advice import advice_on
from tests.support.processes import ROOT


def line_of(text: str, file: str, *, within: str = "") -> int:
    """Return the number of the first line that has a text.

    :param within: text of an earlier line to begin after
    """
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if within in line)
    return next(number for number, line in enumerate(lines[begin:], begin + 1) if text in line)


def reason_of(model: Any, kind: Kind) -> Reason:
    """Return the only reason of a kind that keeps a model off the fast path."""
    (found,) = [reason for reason in instance_reasons(model) if reason.kind is kind]
    return found


def places(reason: Reason) -> list[str]:
    return [str(each.place) for each in reason.code]


def remedy(model: Any, reason: Reason) -> str:
    (found,) = advice_on([reason], model)
    return found
