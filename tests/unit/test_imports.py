from __future__ import annotations

import ast

import pytest

from tests.support.processes import ROOT

FOLDERS = ("bench", "tests")


@pytest.mark.parametrize("folder", FOLDERS)
def test_test_modules_are_imported_by_none(folder: str) -> None:
    importing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(".test_" in f".{name}" for name in _imported(node))
    ]

    assert not importing, "what several test modules use belongs beside them, or in tests/support"


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [f"{prefix}{alias.name}" for alias in node.names]
