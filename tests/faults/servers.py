"""Servers that a test may kill, and start again as they were: same command, same port, same data."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import psycopg2
from redis import Redis, RedisError

from tests.support.waiting import until
from worker import services

REDIS_OPTIONS = ("port", "bind", "dir", "save", "maxmemory-policy", "appendonly", "appendfsync")


class Server:
    """A running server process."""

    def __init__(
        self, url: str, pid: int, answers: Callable[[], bool], command: Sequence[str] | None = None
    ) -> None:
        """
        :param answers: whether it accepts commands
        :param command: what starts it; for one that hides it behind a title
        """
        self.url = url
        self._process = psutil.Process(pid)
        self._command, self._folder = list(command or self._process.cmdline()), self._process.cwd()
        self._account = {"user": self._process.uids().real, "group": self._process.gids().real}
        self._answers = answers

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server, and wait until it is gone."""
        self._process.send_signal(number)
        self._process.wait(20)

    def freeze(self) -> None:
        """Let it do nothing, as on a machine that hangs: the kernel still accepts connections for it."""
        self._process.suspend()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """`freeze`, for a while."""
        self.freeze()
        try:
            yield
        finally:
            self._process.resume()

    def start(self) -> None:
        """Start the server unless it runs, and wait until it accepts commands."""
        if self._answers():
            return
        self._process = psutil.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **(self._account | {"extra_groups": []} if os.geteuid() == 0 else {}),
        )
        until(self._answers, f"{self._command[0]} ready")


@contextlib.contextmanager
def own_redis(*, durable: bool) -> Iterator[Server]:
    """Yield a Redis that forgets everything when it ends, unless it is `durable`."""
    with services.start_redis(durable=durable) as url, Redis.from_url(url) as client:

        def answers() -> bool:
            with contextlib.suppress(RedisError):
                return bool(client.ping())
            return False

        about = client.info("server")
        command = [about["executable"]]
        for name in REDIS_OPTIONS:
            command += [f"--{name}", client.config_get(name)[name]]
        server = Server(url, int(about["process_id"]), answers, command)
        try:
            yield server
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.end()


@contextlib.contextmanager
def own_postgres() -> Iterator[Server]:
    """Yield a PostgreSQL with data that outlives it."""
    with services.start_postgres() as url:

        def answers() -> bool:
            with contextlib.suppress(psycopg2.OperationalError), contextlib.closing(psycopg2.connect(url)):
                return True
            return False

        with contextlib.closing(psycopg2.connect(url)) as session, session.cursor() as cursor:
            cursor.execute("SHOW data_directory")
            ((folder,),) = cursor.fetchall()
        pid = int(Path(folder, "postmaster.pid").read_text().split()[0])
        server = Server(url, pid, answers)
        try:
            yield server
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                server.end(signal.SIGQUIT)
