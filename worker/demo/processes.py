"""Processes of the demo, each with a log, and in a session of its own: Ctrl-C reaches the demo alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import worker

START_SECONDS = 30
STOP_SECONDS = 10
TAIL_LINES = 15


class StepError(Exception):
    """A step of the demo failed; the message is for the user."""


class Process:
    """A running ``python -m ...``, which has to be stopped by `stop` in any case."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        piped: bool = False,
    ) -> None:
        """Start the process.

        :param name: its name in messages
        :param environment: all of its environment variables
        :param piped: keep standard output apart from the log, as `output`
        """
        self.name = name
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=Path(worker.__file__).parent.parent,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else file,
                stderr=file,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        lines = self.log().splitlines()[-TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (nothing)"

    def check(self) -> None:
        """Check that it runs.

        :raises StepError: it has ended
        """
        if (status := self._process.poll()) is not None:
            raise StepError(f"{self.name} ended with status {status}. The end of its log:\n{self.tail()}")

    def wait_until(self, is_ready: Callable[[], bool], check: Callable[[], None]) -> None:
        """Wait until it is ready.

        :param check: called several times a second; an exception of it ends the waiting
        :raises StepError: it ended first, or took too long
        """
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            check()
            self.check()
            if time.monotonic() > deadline:
                raise StepError(
                    f"{self.name} wasn't ready after {START_SECONDS} s. The end of its log:\n{self.tail()}"
                )
            time.sleep(0.02)

    def wait(self, check: Callable[[], None]) -> None:
        """Wait until it has ended by itself.

        :raises StepError: its status is not 0
        """
        while (status := self._process.poll()) is None:
            check()
            time.sleep(0.02)
        if status:
            self.check()

    def request_stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL to it and its remaining children."""
        self.request_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def stop_all(processes: Iterable[Process]) -> None:
    """Stop all of them at the same time."""
    processes = list(processes)
    for process in processes:
        process.request_stop()
    for process in processes:
        process.stop()
