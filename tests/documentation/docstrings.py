"""A check of docstrings' first words: ``python -m tests.documentation.docstrings``.

A docstring that opens with a wh-word or a bare preposition leaves its subject unnamed. So functions'
docstrings open with a verb, for which ruff's D401 looks too, and all others with a noun.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from tests.support.processes import ROOT

FOLDERS = ("morango_celery", "worker", "bench", "tests")
WH_WORDS = frozenset(
    ("how", "what", "whatever", "when", "where", "whether", "which", "who", "whoever", "whom", "whose", "why")
)
PREPOSITIONS = frozenset(("as", "at", "by", "for", "from", "in", "of", "on", "to", "with"))
PUNCTUATION = "`'\"*.,:;()"


class Opening(NamedTuple):
    """A docstring with a refused first word."""

    path: Path
    line: int
    summary: str

    @override
    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.summary}"


def refused(path: Path) -> Iterator[Opening]:
    """Yield the refused openings of a module, of all that it defines, and of attributes with a text below."""
    for text in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
        words = text.value.split()
        if words and words[0].strip(PUNCTUATION).lower() in WH_WORDS | PREPOSITIONS:
            yield Opening(path, text.lineno, text.value.strip().splitlines()[0])


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from filter(None, map(_text, node.body[:1]))
            for before, after in pairwise(node.body):
                if isinstance(before, ast.Assign | ast.AnnAssign) and (text := _text(after)):
                    yield text


def _text(statement: ast.stmt) -> ast.Constant | None:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return None
    return statement.value if isinstance(statement.value.value, str) else None


def main(root: Path = ROOT) -> int:
    """Print all refused openings below the project's folders.

    :returns: the exit status: 1 if there are any
    """
    found = [
        opening
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        for opening in refused(path)
    ]
    for opening in found:
        print(opening._replace(path=opening.path.relative_to(root)))
    if found:
        print(f"{len(found)} docstrings open with a wh-word or a preposition: name the subject.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
