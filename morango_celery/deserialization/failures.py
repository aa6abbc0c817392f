"""Failures of a batch's records in short, for one line of the log."""

from __future__ import annotations

from collections import Counter

from typing_extensions import override

from morango_celery.printable import printable

MAX_GROUPS = 5
"""Number of groups that the text has, the largest first."""
MAX_EXAMPLE_CHARACTERS = 500


class Failures:
    """Numbers of failed records by model and exception, with the error of the first record."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._example = ""

    def add(self, store_id: str, model_name: str, exception: str, text: str) -> None:
        """Count a record.

        :param exception: path of its class
        :param text: the error as the Store has it
        """
        self._counts[model_name, exception.rpartition(".")[2]] += 1
        self._example = self._example or (
            f"{printable(store_id)} of {printable(model_name)}: {printable(text, MAX_EXAMPLE_CHARACTERS)}"
        )

    def __bool__(self) -> bool:
        return bool(self._counts)

    @property
    def models(self) -> str:
        """Return the names of their models, such as "learner, unit"."""
        return ", ".join(sorted({model for model, _ in self._counts}))

    @override
    def __str__(self) -> str:
        """Return like "9 learner (ValidationError), 1 unit (KeyError); the first is 01ab of unit: 'name'"."""
        groups = self._counts.most_common()
        texts = [
            f"{count:,} {printable(model)} ({printable(exception)})"
            for (model, exception), count in groups[:MAX_GROUPS]
        ]
        if others := sum(count for _, count in groups[MAX_GROUPS:]):
            texts.append(f"{others:,} others")
        return f"{', '.join(texts)}; the first is {self._example}"
