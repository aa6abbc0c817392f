"""docs/reference/python.md has the functions' own signatures, and every public name."""

from __future__ import annotations

import inspect
import re

from django.dispatch import Signal

import morango_celery
from morango_celery import errors, signals
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")


def signature(name: str) -> str:
    """Return a function's signature without types."""
    parameters = inspect.signature(getattr(morango_celery, name)).parameters.values()
    return str(inspect.Signature([one.replace(annotation=inspect.Parameter.empty) for one in parameters]))


def test_signatures_of_the_page_are_those_of_the_functions() -> None:
    listed = dict(re.findall(r"^\| `(\w+)(\([^`]*\))` \|", PAGE, re.MULTILINE))

    assert listed == {name: signature(name) for name in listed}
    assert {*listed, "DeserializeTask", "StoreModelSource"} == set(morango_celery.__all__)


def test_the_page_has_each_signal_and_each_branch_of_errors() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    branches = {branch.__name__ for branch in errors.MorangoCeleryError.__subclasses__()}

    assert branches <= named
    assert {name for name, value in vars(signals).items() if isinstance(value, Signal)} <= named
