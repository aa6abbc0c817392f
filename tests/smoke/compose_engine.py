"""Docker Compose on a real engine: a deployment of its own name and image, removed afterwards."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support import compose
from tests.support.processes import ROOT
from worker.services import free_port

PROJECT = "morango-celery-proof"
IMAGE = f"{PROJECT}:0"

Execute = Callable[[Sequence[str]], str]
"""Run a command, and return its output."""


class CommandError(Exception):
    """A command failed; its output says why."""


def execute(command: Sequence[str]) -> str:
    """Run a command at the top of the checkout.

    :raises CommandError: there is no such program, or its status isn't 0
    """
    if shutil.which(command[0]) is None:
        raise CommandError(f"there is no program {command[0]!r}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def reason_to_skip(execute: Execute) -> str | None:
    """Return the reason against running containers here; None if an engine answers."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            execute(command)
        except CommandError as error:
            return str(error).strip().splitlines()[-1]
    return None


class Engine:
    """The file's services as containers.

    A second file gives the image a name of its own, so that a deployment on this engine keeps its image.

    :param has_rabbitmq: RabbitMQ is the broker, by its profile, in place of Redis
    """

    def __init__(self, folder: Path, execute: Execute, *, has_rabbitmq: bool = False) -> None:
        self._execute = execute
        self.has_rabbitmq = has_rabbitmq
        self.variables = {
            **{name: secrets.token_hex(16) for name in sorted(compose.required_variables())},
            "WEB_PORT": str(free_port()),
            "FLOWER_PORT": str(free_port()),
        }
        if has_rabbitmq:
            password = secrets.token_hex(16)
            self.variables |= {
                "RABBITMQ_PASSWORD": password,
                "BROKER_URL": f"amqp://morango:{password}@rabbitmq:5672//",
            }
        environment = folder / "proof.env"
        environment.write_text("".join(f"{name}={value}\n" for name, value in self.variables.items()))
        images = folder / "images.yml"
        images.write_text(yaml.safe_dump(own_images(compose.interpolated(self.variables))))
        self._compose = ["docker", "compose", f"--project-name={PROJECT}", f"--env-file={environment}"]
        self._compose += [f"--file={compose.FILE}", f"--file={images}"]
        self._compose += ["--profile=rabbitmq"] if has_rabbitmq else []
        self._before = self.images()

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.variables['WEB_PORT']}/"

    def compose(self, *arguments: str) -> str:
        return self._execute([*self._compose, *arguments])

    def docker(self, *arguments: str) -> str:
        return self._execute(["docker", *arguments])

    def containers(self, *services: str) -> set[str]:
        """Return the ids of the running containers."""
        return set(self.compose("ps", "--quiet", *services).split())

    def images(self) -> set[str]:
        """Return the names of all images, as the file has them."""
        return set(self.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}").split())

    def dangling(self) -> set[str]:
        """Return the ids of images of this project that have no name."""
        own = f"--filter=label=com.docker.compose.project={PROJECT}"
        return set(self.docker("image", "ls", "--quiet", "--no-trunc", "--filter=dangling=true", own).split())

    def versions(self) -> str:
        server = self.docker("version", "--format={{.Server.Version}}").strip()
        return f"Docker Engine {server}, Compose {self.compose('version', '--short').strip()}"

    def manage(self, *arguments: str) -> str:
        return self.compose("exec", "-T", "web", "python", "-m", "worker", *arguments)

    def runs(self) -> list[Mapping[str, Any]]:
        """Return the newest runs, as the status command writes them."""
        listed: list[Mapping[str, Any]] = json.loads(self.manage("deserialize_status", "--json"))["runs"]
        return listed

    def query(self, statement: str) -> list[str]:
        """Return the rows of a query, as the database's superuser."""
        command = ["psql", "--username=postgres", "--dbname=morango", "--no-align", "--tuples-only"]
        return self.compose("exec", "-T", "postgres", *command, f"--command={statement}").split("\n")[:-1]

    def crash(self, service: str) -> None:
        """Kill a container's processes from within: they end by themselves, as far as the engine knows."""
        with contextlib.suppress(CommandError):  # the shell may be gone before it can tell
            self.compose("exec", "-T", service, "sh", "-c", "kill -KILL -1")

    def restarts(self, services: Sequence[str]) -> list[int]:
        """Return how often the engine has started each of the containers again."""
        containers = self.compose("ps", "--all", "--quiet", *services).split()
        return [
            int(count) for count in self.docker("inspect", "--format={{.RestartCount}}", *containers).split()
        ]

    def users_of_rabbitmq(self) -> set[str]:
        """Return the names by which its clients have logged in."""
        command = ["rabbitmqctl", "--quiet", "list_connections", "--no-table-headers", "user"]
        return set(self.compose("exec", "-T", "rabbitmq", *command).split())

    def remove(self) -> None:
        """Remove all containers, volumes and networks, and their images that weren't there before.

        Others that came meanwhile are somebody else's.
        """
        named = set(self.compose("config", "--images").split())
        self.compose("down", "--volumes", "--remove-orphans", "--timeout=10")
        new = (named & self.images() - self._before) | self.dangling()
        if new:
            self.docker("image", "rm", "--force", *sorted(new))


def own_images(file: Mapping[str, Any]) -> dict[str, Any]:
    """Return the file that gives all services of the project's image this proof's name."""
    services = file["services"]
    built = {service["image"] for service in services.values() if "build" in service}
    return {
        "services": {
            name: {"image": IMAGE} for name, service in services.items() if service["image"] in built
        }
    }
