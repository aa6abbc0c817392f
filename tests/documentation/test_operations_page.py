"""Code blocks of the pages for operators: they do as the page says."""

from __future__ import annotations

import re

import pytest
from morango.models import InstanceIDModel

from tests.support.processes import ROOT

pytestmark = pytest.mark.django_db


def python_block(name: str) -> str:
    """Return the only Python block of a page of docs/how-to."""
    page = (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(block)


RENEW_DATABASE = python_block("upgrade.md")


def test_restored_database_becomes_another_instance() -> None:
    before, _ = InstanceIDModel.get_or_create_current_instance(clear_cache=True)

    exec(RENEW_DATABASE, {})

    after, is_new = InstanceIDModel.get_or_create_current_instance(clear_cache=True)
    assert is_new
    assert after.id != before.id
