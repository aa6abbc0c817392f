"""One small break of the pipeline, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Database = Literal["postgresql", "sqlite"]


class OutOfDateError(Exception):
    """The catalogue and the code have parted strategies."""


@dataclass(frozen=True)
class Mutation:
    """A rule, and the change of one place in the code that breaks it."""

    rule: str
    """The rule's name; in the catalogue of deviations, the anchor of its row in docs/fidelity.md."""
    path: str
    """Below ``morango_celery/``."""
    old: str
    """Stands in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """Files or tests, as pytest is told, at least one of which must fail; below ``tests/``."""
    database: Database = "sqlite"

    def mutated(self, folder: Path) -> str:
        """Return the file's text after the change.

        :param folder: the project
        :raises OutOfDateError: there is no such file, or not exactly one such place in it
        """
        file = folder / "morango_celery" / self.path
        if not file.is_file():
            raise OutOfDateError(f"there is no morango_celery/{self.path}; the catalogue is out of date")
        text = file.read_text()
        if (found := text.count(self.old)) != 1:
            raise OutOfDateError(
                f"its old text stands {found} times in morango_celery/{self.path}, not once;"
                " the catalogue is out of date"
            )
        return text.replace(self.old, self.new)
