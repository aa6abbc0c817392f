"""Processes of both instances: the server's HTTP server and workers, and the device."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from worker import services
from worker.demo.processes import Process

WORKERS = 2


def server_environment(database_url: str, redis_url: str) -> dict[str, str]:
    """Return the environment variables of the server's processes, which override this process' own."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DJANGO_SETTINGS_MODULE": "worker.settings",
        "MORANGO_CELERY_MODE": "await",
        "SECRET_KEY": secrets.token_urlsafe(32),
        "DEBUG": "0",
        "ALLOWED_HOSTS": "127.0.0.1",
        "LOG_LEVEL": "INFO",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


class Instances:
    """Starter of the processes. Its owner stops those in `started`."""

    def __init__(self, folder: Path, check: Callable[[], None]) -> None:
        """Begin with no process.

        :param folder: place of logs and of the device's database
        :param check: called several times a second while something starts; an exception of it ends the
            waiting
        """
        self.started: list[Process] = []
        self._folder = folder
        self._check = check

    def start_server(self, environment: dict[str, str]) -> str:
        """Start the HTTP server, and return its URL."""
        port = services.free_port()
        server = self._start(
            "The HTTP server", ["worker", "runserver", "--noreload", f"127.0.0.1:{port}"], environment
        )
        server.wait_until(lambda: _listens(port), self._check)
        return f"http://127.0.0.1:{port}/"

    def start_workers(self, environment: dict[str, str]) -> list[Process]:
        workers = [self._start_worker(number, environment) for number in range(1, WORKERS + 1)]
        for worker in workers:
            worker.wait_until(partial(_is_ready, worker), self._check)
        return workers

    def start_device(self, environment: dict[str, str], arguments: list[str], password: str) -> Process:
        return self._start(
            "The device",
            ["worker.demo.sender", *arguments],
            {
                **environment,
                "DATABASE_URL": self.device_url,
                "REDIS_URL": "",
                "DEMO_PASSWORD": password,  # other users of the machine can read arguments
            },
            piped=True,
        )

    @property
    def device_url(self) -> str:
        return f"sqlite:///{self._folder / 'device.sqlite3'}"

    def check(self) -> None:
        """Check that all processes run.

        :raises StepError: one of them has ended
        """
        for process in self.started:
            process.check()

    def _start_worker(self, number: int, environment: dict[str, str]) -> Process:
        arguments = [
            "morango_celery.worker",
            "-A",
            "worker",
            f"--hostname=worker{number}@%h",
            "--loglevel=INFO",
        ]
        arguments += ["--concurrency=1", "--without-gossip", "--without-mingle"]
        return self._start(f"Worker {number}", arguments, environment)

    def _start(
        self, name: str, arguments: list[str], environment: dict[str, str], *, piped: bool = False
    ) -> Process:
        log = self._folder / f"{name.lower().replace(' ', '-')}.log"
        # A process that is killed leaves its temporary files; so they go with ours.
        environment = {**os.environ, **environment, "TMPDIR": str(self._folder)}
        process = Process(name, arguments, log, environment, piped=piped)
        self.started.append(process)
        return process


def _is_ready(worker: Process) -> bool:
    return " ready." in worker.log()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
