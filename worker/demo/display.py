"""Display of steps, a line each: on a terminal a bar while it runs, and its duration when it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

WIDTH = 66


class Display:
    """Output of the demo."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._text = ""
        self._total: int | None = None
        self._began = 0.0

    def line(self, text: str = "") -> None:
        self._remove_bar()
        print(text, flush=True)

    def begin(self, text: str, total: int | None = None) -> None:
        """Begin a step; the previous one, if any, is done."""
        self.end()
        self._text = text
        self._total = total
        self._began = time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=text.ljust(WIDTH) if total else text,
            bar_format="{desc} {percentage:3.0f} % of {total_fmt} {bar}" if total else "{desc} ...",
            leave=False,
            disable=not sys.stderr.isatty(),
        )

    def progress(self, done: int, total: int | None = None) -> None:
        """Set the step's progress; its total may have grown."""
        if self._bar is None:
            return
        if total is not None:
            self._total = self._bar.total = total
        self._bar.n = done
        self._bar.refresh()

    def end(self) -> None:
        if not self._text:
            return
        self._remove_bar()
        seconds = time.monotonic() - self._began
        count = f"{self._total:,}" if self._total else ""
        print(f"{self._text.ljust(WIDTH)} {count:>9} {seconds:6.1f} s", flush=True)
        self._text = ""

    def give_up(self) -> None:
        """Mark the step as given up."""
        self._remove_bar()
        if self._text:
            print(f"{self._text} ... not done", flush=True)
        self._text = ""

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        self.begin(text)
        yield
        self.end()

    def _remove_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
