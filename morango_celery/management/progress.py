"""The bar that commands show on a terminal while somebody waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class ProgressBar:
    """A bar with a number of things done; elsewhere than on a terminal it shows nothing."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def show(self, done: int, total: int | None = None, label: str = "", **notes: object) -> None:
        """Show how much is done.

        :param total: number of all things, as far as it is known
        :param label: text before the bar
        :param notes: names and values behind it
        """
        self._bar.n = done
        if total is not None:
            self._bar.total = total
        if label:
            self._bar.set_description(label, refresh=False)
        if notes:
            self._bar.set_postfix(notes, refresh=False)
        self._bar.refresh()


@contextmanager
def progress_bar(unit: str, total: int | None = None, *, is_size: bool = False) -> Iterator[ProgressBar]:
    """Yield a bar on the standard error output, if that is a terminal.

    :param unit: name of the things in the plural, such as "records"; of a size, its unit
    :param is_size: True for a size, which is shown in thousands and millions of its unit
    """
    options: dict[str, Any] = {"unit": unit, "unit_scale": True} if is_size else {"unit": f" {unit}"}
    with tqdm(total=total, disable=not sys.stderr.isatty(), **options) as bar:
        yield ProgressBar(bar)
