"""Mutation of one place in the code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Database = Literal["postgresql", "sqlite"]


class OutOfDateError(Exception):
    """A mutation doesn't fit the code any more."""


@dataclass(frozen=True)
class Mutation:
    """One row of docs/fidelity.md, and the change of the code that undoes it."""

    rule: str
    """The row's anchor."""
    path: str
    """Below ``morango_celery/``."""
    old: str
    """Stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """Tests below ``tests/``, as pytest takes them; at least one must fail."""
    database: Database = "sqlite"

    def mutated(self, folder: Path) -> str:
        """Return the file's text after the change.

        :param folder: the project
        :raises OutOfDateError: there is no such file, or not exactly one such place in it
        """
        file = folder / "morango_celery" / self.path
        if not file.is_file():
            raise OutOfDateError(f"there is no morango_celery/{self.path}")
        text = file.read_text()
        if (found := text.count(self.old)) != 1:
            raise OutOfDateError(f"its old text stands {found} times in morango_celery/{self.path}, not once")
        return text.replace(self.old, self.new)
