"""docs/explain/architecture.md: its diagrams show the ledger's moves, and the code has the names it gives."""

from __future__ import annotations

import re

from morango_celery.models import Batch, Run
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "explain" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "morango_celery"
RUNS, BATCHES = re.findall(r"^```mermaid\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

COALESCED = ("pending", "completed")
"""The move of a run that another one has coalesced: it ends with that, by a statement for all such runs."""


def moves(diagram: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^ +(\w+) --> (\w+):", diagram, re.MULTILINE))


def ends(diagram: str) -> set[str]:
    return set(re.findall(r"^ +(\w+) --> \[\*\]", diagram, re.MULTILINE))


def test_diagram_of_runs_shows_their_moves() -> None:
    known = {(state.value, after.value) for state, allowed in Run.MOVES.items() for after in allowed}

    assert moves(RUNS) == {*known, COALESCED}
    assert ends(RUNS) == {state.value for state, allowed in Run.MOVES.items() if not allowed}


def test_diagram_of_batches_shows_their_moves() -> None:
    known = {(state.value, after.value) for state, allowed in Batch.MOVES.items() for after in allowed}

    assert moves(BATCHES) == known
    assert ends(BATCHES) == {state.value for state, allowed in Batch.MOVES.items() if not allowed}


def test_modules_that_the_page_names_exist() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))

    assert {
        name for name in named if not any(f"/{module}".endswith(f"/{name}") for module in modules)
    } == set()


def test_modules_have_the_names_that_the_page_gives_them() -> None:
    given = re.findall(r"`([\w/]+\.py)`: `(\w+)`", PAGE)
    missing = [
        (module, name)
        for module, name in given
        if not re.search(rf"^ *(def|class) {name}\b", (PACKAGE / module).read_text(), re.MULTILINE)
    ]

    assert len(given) > 10
    assert missing == []
