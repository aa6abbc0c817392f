"""Real processes for tests: started in a group of their own, logged to a file, ended with their group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

PATIENCE_SECONDS = 60
"""Time limit for steps that take a second on a machine at rest, whichever load it has."""


class LoggedProcess:
    """A running ``python -m ...`` whose output (both streams) goes to `log_path`."""

    def __init__(
        self,
        arguments: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str],
        *,
        as_in_container: bool = False,
        folder: Path = ROOT,
    ) -> None:
        """
        :param environment: is merged over this process's environment
        :param as_in_container: `arguments` are a whole command, and `environment` is all there is
        :param folder: its working directory
        """
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                arguments if as_in_container else [sys.executable, "-m", *arguments],
                cwd=folder,
                env=environment if as_in_container else {**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_until(
        self, happened: Callable[[], bool], what: str, timeout_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Fail, with the log, when the process ends first or it takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not happened():
            if not self.is_running:
                raise AssertionError(
                    f"ended with status {self._process.returncode} before {what}:\n{self.log()}"
                )
            if time.monotonic() > deadline:
                raise AssertionError(f"not {what} after {timeout_seconds} s:\n{self.log()}")
            time.sleep(0.02)

    def wait_for_log(self, text: str, timeout_seconds: float = PATIENCE_SECONDS, *, times: int = 1) -> None:
        self.wait_until(lambda: self.log().count(text) >= times, f"logged {text!r}", timeout_seconds)

    def wait_until_ended(self, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """Return the exit status; fail, with the log, when it takes too long."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_seconds} s:\n{self.log()}") from None

    def kill(self) -> None:
        """SIGKILL for the process and its children, as when a container dies."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)

    def stop(self, timeout_seconds: float = 10) -> None:
        """Send SIGTERM, then SIGKILL to the rest of the group."""
        if self.is_running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        self.kill()
