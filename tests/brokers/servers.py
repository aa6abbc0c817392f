"""Brokers as processes of this machine: Redis, Valkey and RabbitMQ, where their binaries are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from typing_extensions import override

from tests.support.processes import LoggedProcess
from worker.services import ServiceError, free_port, redis_binary

START_SECONDS = 120

RABBITMQ_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/rabbitmq/sbin")
"""Folders in which packages put the server's own script. That of Debian on PATH is for root."""


class Broker:
    """A broker that is started, killed and started again on one port, with what it had written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: LoggedProcess | None = None
        self._starts = 0

    @property
    def url(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    def answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as client,
        ):
            client.settimeout(5)
            client.sendall(self.greeting)
            return client.recv(8) != b""
        return False

    greeting = b""

    def start(self) -> None:
        self._starts += 1
        log = self.folder / f"server{self._starts}.log"
        self._process = LoggedProcess(self.command(), log, self.environment(), as_in_container=True)
        self._process.wait_until(self.answers, "answering", START_SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Kill all that was started."""
        self.kill()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it answer nothing inside."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)


class Redis(Broker):
    greeting = b"PING\r\n"

    @property
    @override
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @staticmethod
    def binary() -> str:
        """Return the path of the server.

        :raises ServiceError: there is none
        """
        return str(redis_binary())

    @override
    def command(self) -> list[str]:
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--dir": str(self.folder), "--save": ""}
        options |= {"--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction"}
        return [self.binary(), *(word for option in options.items() for word in option)]


class Valkey(Redis):
    @staticmethod
    @override
    def binary() -> str:
        found = os.environ.get("VALKEY_SERVER") or shutil.which("valkey-server")
        if not found:
            raise ServiceError("No Valkey found: put valkey-server on PATH, or name it in VALKEY_SERVER.")
        return found


class RabbitMQ(Broker):
    greeting = b"AMQP\x00\x00\x09\x01"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._distribution_port, self._names_port = free_port(), free_port()
        self._names: LoggedProcess | None = None
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")

    @property
    @override
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @staticmethod
    def binary() -> str:
        found = os.environ.get("RABBITMQ_SERVER") or shutil.which(
            "rabbitmq-server", path=os.pathsep.join((*RABBITMQ_FOLDERS, os.environ["PATH"]))
        )
        if not found:
            raise ServiceError("No RabbitMQ found: install rabbitmq-server, or name it in RABBITMQ_SERVER.")
        return found

    @override
    def command(self) -> list[str]:
        return [self.binary()]

    @override
    def environment(self) -> Mapping[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": folder,  # of the cookie that its tools need
            "ERL_ROOTDIR": os.environ.get("ERL_ROOTDIR", ""),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    @override
    def start(self) -> None:
        if self._names is None:  # else the node starts one that outlives it
            epmd = shutil.which("epmd", path=self.environment()["PATH"])
            if not epmd:
                raise ServiceError("RabbitMQ needs Erlang's epmd on PATH.")
            self._names = LoggedProcess(
                [epmd, "-port", str(self._names_port)],
                self.folder / "epmd.log",
                self.environment(),
                as_in_container=True,
            )
        super().start()

    def control(self, *words: str) -> str:
        """Execute a command of rabbitmqctl's, and return its output."""
        tool = str(Path(self.binary()).with_name("rabbitmqctl"))
        done = subprocess.run(
            [tool, "--quiet", *words], env=self.environment(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Have it take no messages inside, as when it is short of memory."""
        self.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "0.4")

    def release(self) -> tuple[int, int]:
        """Return the major and the minor version."""
        major, minor, *_ = self.control("version").strip().split(".")
        return int(major), int(minor)

    @override
    def end(self) -> None:
        super().end()
        if self._names is not None:
            self._names.kill()
