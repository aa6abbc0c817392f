"""Source code of the package and of its deployment: its modules, and the names that they use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import ROOT

LOOKING_UP = {"getattr", "hasattr", "setattr", "delattr", "getattr_static"}


def modules() -> list[Path]:
    folders = (ROOT / "morango_celery", ROOT / "worker")
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if "migrations" not in path.parts
    )


def label(path: Path) -> str:
    return str(path.relative_to(ROOT)).removeprefix("morango_celery/")


def used(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a module reads from objects and modules, or looks up by a text."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute():
                yield node.attr
            case ast.ImportFrom():
                yield from (name.name for name in node.names)
                yield from (node.module or "").split(".")
            case ast.Import():
                yield from (part for name in node.names for part in name.name.split(".") if "." in name.name)
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]):
                if function in LOOKING_UP:
                    yield name
