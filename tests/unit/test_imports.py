from __future__ import annotations

import re

import pytest

from tests.support.processes import ROOT

FOLDERS = ("bench", "tests")
OF_A_TEST_MODULE = re.compile(
    r"^ *(from \S+\.test_\w+ import|from \S+ import .*\btest_|import \S+\.test_)", re.MULTILINE
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_test_modules_are_imported_by_none(folder: str) -> None:
    importing = [
        f"{path.relative_to(ROOT)}: {found[0].strip()}"
        for path in (ROOT / folder).rglob("*.py")
        for found in OF_A_TEST_MODULE.finditer(path.read_text(encoding="utf-8"))
    ]

    assert not importing, "what several test modules use belongs beside them, or in tests/support"
