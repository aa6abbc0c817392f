"""The check of docstrings' first words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation import docstrings
from tests.support.processes import ROOT

REFUSED = '''"""Whose turn it is."""

limit = 3
"""How many there are."""


class Turns:
    """`What` comes next."""

    seconds: float = 0
    """Of a turn."""

    def next(self) -> None:
        """For whoever asks."""

    async def last(self) -> None:
        """
        Whether it is over.
        """
'''
ACCEPTED = '''"""Turns of messages."""

limit = 3
"""Largest number of turns, of which each takes a second."""
text = "What is no docstring."


class Turns:
    """Forms of turns."""

    def next(self) -> str:
        """Return the message whose turn it is."""
        return """What is returned."""

    def last(self) -> None:
        """:raises KeyError: there is none"""
'''


def test_docstrings_that_open_with_a_wh_word_or_a_preposition_are_refused(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(REFUSED)
    found = sorted((opening.line, opening.summary) for opening in docstrings.refused(module))
    assert found == [
        (1, "Whose turn it is."),
        (4, "How many there are."),
        (8, "`What` comes next."),
        (11, "Of a turn."),
        (14, "For whoever asks."),
        (17, "Whether it is over."),
    ]


def test_other_openings_and_other_texts_are_accepted(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(ACCEPTED)
    assert list(docstrings.refused(module)) == []


@pytest.mark.parametrize(("text", "status"), [(REFUSED, 1), (ACCEPTED, 0)])
def test_status_says_whether_a_docstring_below_the_folders_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, status: int
) -> None:
    (tmp_path / "worker" / "demo").mkdir(parents=True)
    (tmp_path / "worker" / "demo" / "module.py").write_text(text)
    (tmp_path / "elsewhere.py").write_text(REFUSED)
    assert docstrings.main(tmp_path) == status
    shown = capsys.readouterr().out
    assert ("worker/demo/module.py:1: Whose turn it is." in shown) == bool(status)
    assert "elsewhere" not in shown


def test_make_check_looks_at_docstrings() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check = makefile.partition("\ncheck: ")[2].partition("\n\n")[0]
    assert "-m tests.documentation.docstrings" in check
