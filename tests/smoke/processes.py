"""Nodes of pytest-celery as processes of this machine: no engine, no images, and ready in a moment."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestContainer

from tests.smoke.deployment import DeployedWorker, ForgetfulRedis
from tests.support.processes import LoggedProcess
from tests.support.workers import unavailable
from worker import services


class Process:
    """A process and its children, with the part of docker-py's container that the framework uses."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """
        :param folder: for its logs
        :param environment: is merged over this process's environment
        """
        self.id = uuid.uuid4().hex
        self.name = f"{Path(command[0]).name}-{self.id[:12]}"
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}  # nothing to wait for
        # Each container is a host of its own
        self._command = [word.replace("%h", self.id[:12]) for word in command]
        self._folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, **environment}
        self._starts: list[LoggedProcess] = []
        self._start()

    def _start(self) -> None:
        log = self._folder / f"{self.name}.{len(self._starts)}.log"
        self._starts.append(LoggedProcess(self._command, log, self._environment, as_in_container=True))

    @property
    def status(self) -> str:
        return "running" if self._starts[-1].is_running else "exited"

    def reload(self) -> None:
        """`status` is never out of date."""

    def kill(self, signal: str | None = None) -> None:
        if signal is None or signal == "SIGKILL":
            self._starts[-1].kill()
        elif self._starts[-1].is_running:
            os.kill(self._starts[-1].pid, signals.Signals[signal])

    def restart(self, timeout: float) -> None:
        self._starts[-1].stop(timeout)
        self._start()

    def logs(self) -> bytes:
        return "".join(start.log() for start in self._starts).encode()

    def wait_for_log(self, text: str) -> None:
        """Wait for a line since the last start; the framework would accept one of an earlier start."""
        self._starts[-1].wait_for_log(text)


class ReadyInAMoment(CeleryTestContainer):
    def _wait_ready(self, timeout: int = 0) -> bool:
        self._container.wait_for_log(self.ready_prompt)
        return True


class RedisProcess(ReadyInAMoment, ForgetfulRedis):
    def __init__(self, folder: Path) -> None:
        """Prepare a Redis on a free port.

        :raises ServiceError: there is no Redis
        """
        self._port = services.free_port()
        _, *options = self.command("--port", str(self._port), "--bind", "127.0.0.1")
        super().__init__(Process([str(services.redis_binary()), *options], folder, {}))

    @property
    def port(self) -> int:
        return self._port

    @property
    def hostname(self) -> str:
        return f"127.0.0.1:{self._port}"  # the framework takes the default port for granted

    @property
    def host_url(self) -> str:
        url: str = self.url
        return url


class WorkerProcess(ReadyInAMoment, DeployedWorker):
    pass


@contextlib.contextmanager
def _running(node: CeleryTestContainer) -> Iterator[Any]:
    """Yield the node from the moment it is ready; remove it afterwards, as a container."""
    try:
        node.ready()
        yield node
    finally:
        node.kill()


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisProcess]:
    try:
        node = RedisProcess(tmp_path)
    except services.ServiceError as error:
        unavailable(str(error))
    with _running(node):
        yield node


def _worker(
    tmp_path: Path, default_worker_command: list[str], default_worker_env: dict[str, str]
) -> Iterator[WorkerProcess]:
    with _running(WorkerProcess(Process(default_worker_command, tmp_path, default_worker_env))) as node:
        yield node


worker_process = pytest.fixture(name="worker_process")(_worker)
other_worker_process = pytest.fixture(name="other_worker_process")(_worker)
