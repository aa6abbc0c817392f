"""docs/fidelity.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8").splitlines()
    if line.startswith('| <a id="')
]
TESTS = re.findall(
    r"def test_(\w+)", "".join(path.read_text() for path in (ROOT / "tests" / "parity").rglob("test_*.py"))
)


@pytest.mark.parametrize("row", ROWS, ids=re.findall(r'<a id="([^"]+)"', "\n".join(ROWS)))
def test_each_deviation_names_its_tests(row: str) -> None:
    named = re.findall(r"`([^`]+)`", row.split("|")[-2])

    assert named
    for name in named:
        pattern = "".join(f"{re.escape(part)}.*" for part in name.split("…")).removesuffix(".*")
        matches = [test for test in TESTS if re.fullmatch(pattern, test)]
        assert matches or name in ("make kolibri", "test_clock.py"), f"there is no test {name}"
