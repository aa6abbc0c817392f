"""The diagrams in docs/explain/architecture.md show the moves that the ledger knows."""

from __future__ import annotations

import re

from morango_celery.models import Batch, Run
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "explain" / "architecture.md").read_text(encoding="utf-8")
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
