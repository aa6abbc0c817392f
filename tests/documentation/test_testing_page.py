"""The examples of docs/develop/testing.md, run as tests of this module."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "develop" / "testing.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
BEFORE = set(globals())

for example in EXAMPLES:
    exec(compile(example, str(PAGE), "exec"), globals())

TESTS = [name for name in globals() if name.startswith("test_") and name not in BEFORE]


@pytest.fixture(autouse=True)
def _as_in_parity_tests(request: pytest.FixtureRequest, settings: Any) -> None:
    """Let Morango set no isolation level inside of a test's transaction."""
    if "school" not in request.fixturenames:
        request.getfixturevalue("db")
        settings.MORANGO_TEST_POSTGRESQL = True


def test_page_has_an_example_of_each_kind() -> None:
    assert len(TESTS) == len(EXAMPLES) == 3
