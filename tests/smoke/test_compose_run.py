"""Parts of ``make compose`` that need no engine: a recorder takes the place of the docker command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.smoke import compose_engine, compose_run
from tests.smoke.compose_engine import IMAGE, CommandError, Engine
from tests.smoke.compose_run import FailedStepError
from tests.support import compose

RECORDS = 100
SERVERS_IMAGES = {"postgres:18.4-bookworm", "redis:7.4.2-bookworm"}
ACCESS = "Access(school_id='ab12', account='head', password='a-dummy_password')"


class Docker:
    """The docker command of an engine on which all goes well."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.profiles: set[str] = set()
        self.pushed = 0
        self.workers = 1
        self.is_up = False
        self.saved = RECORDS
        self.running = "1"
        self.begun = ["celery@worker0 16"]
        self.crashed = 0
        self.roles = ["morango_application", "postgres"]
        self.clients = ["morango"]
        self.dangling: list[str] = []

    def __call__(self, command: Sequence[str]) -> str:
        common = ("--project-name", "--env-file", "--file", "--profile")
        words = [word for word in command if not word.startswith(common)]
        self.profiles |= {word for word in command if word.startswith("--profile")}
        line = " ".join(words)
        self.commands.append(line)
        match words[1:]:
            case ["image", "ls", *options]:
                # Before, one of them was there; meanwhile, somebody else built another one
                later = {IMAGE, *SERVERS_IMAGES, "others:2"} if self.is_up else set()
                named = {"others:1", "redis:7.4.2-bookworm", *later}
                return "\n".join(self.dangling if "--filter=dangling=true" in options else named)
            case ["compose", "config", "--images"]:
                return "\n".join({IMAGE, *SERVERS_IMAGES})
            case ["compose", "up", *options]:
                self.is_up = True
                self.workers = 3 if "--scale=worker=3" in options else self.workers
            case ["compose", "ps", *options_and_services]:
                services = [word for word in options_and_services if not word.startswith("--")]
                names = [f"worker{number}" for number in range(self.workers)]
                if not services:
                    services = ["postgres", "worker", "web"]
                return "\n".join([*names, *(other for other in services if other != "worker")])
            case ["compose", "run", *_]:
                return ACCESS
            case ["compose", "exec", _, _, "sh", "-c", "kill -KILL -1"]:
                self.crashed += 1
                raise CommandError("status 137")
            case ["inspect", _, *ids]:
                return "\n".join(str(int(number < self.crashed)) for number, _ in enumerate(ids))
            case ["compose", "exec", _, "postgres", *_]:
                rows = {
                    "pg_stat": self.roles,
                    "'running'": [self.running],
                    "'open'": self.begun,
                    "store": ["200"],
                }
                (found,) = (rows[word] for word in rows if word in line)
                return "".join(f"{row}\n" for row in found)
            case ["compose", "exec", _, "rabbitmq", *_]:
                return "".join(f"{client}\n" for client in self.clients)
            case ["compose", "exec", _, "web", *_]:
                counts = {"saved": self.saved, "failed": 0}
                runs = [
                    {"run": number, "state": "completed", "records": counts} for number in range(self.pushed)
                ]
                return json.dumps({"runs": runs})
        return ""

    def push(self, engine: Engine, access: tuple[str, ...], with_kill: bool) -> None:
        assert access == ("ab12", "head", "a-dummy_password")
        self.pushed += 1
        if with_kill:
            assert compose_run.kill_a_worker(engine)

    def prove(self, folder: Path, *, has_rabbitmq: bool = False) -> None:
        compose_run.prove(Engine(folder, self, has_rabbitmq=has_rabbitmq), self.push, RECORDS)


def test_steps_come_in_order_and_all_is_removed(tmp_path: Path) -> None:
    docker = Docker()

    docker.prove(tmp_path)

    steps = [
        "docker compose up --detach --build --wait",
        "docker compose up --detach --wait",
        "docker compose up --detach --wait",
        "docker compose up --detach --wait --scale=worker=3 --no-recreate",
        "docker kill --signal=KILL worker0",
        "docker compose down",
        "docker compose up --detach --wait",
        "docker compose down --volumes --remove-orphans --timeout=10",
        f"docker image rm --force {IMAGE} postgres:18.4-bookworm",
    ]
    assert [
        line for line in docker.commands if line.split()[2] in ("up", "down", "rm", "--signal=KILL")
    ] == steps


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("saved", RECORDS - 1, "not all is saved"),
        ("roles", ["morango_application", "postgres", "someone"], "sessions of other roles"),
        ("roles", ["postgres"], "sessions of other roles"),
        ("dangling", ["sha256:twin"], "images without a name"),
        ("running", "0", "the run was over"),
    ],
)
def test_step_that_fails_is_named_and_everything_is_removed_all_the_same(
    tmp_path: Path, attribute: str, value: object, reason: str
) -> None:
    docker = Docker()
    setattr(docker, attribute, value)

    with pytest.raises(FailedStepError, match=reason):
        docker.prove(tmp_path)

    assert any(line.startswith("docker compose logs") for line in docker.commands)
    assert docker.commands[-1].startswith("docker image rm")
    assert set(docker.dangling) < set(docker.commands[-1].split())


def test_rabbitmq_is_the_broker_by_its_profile_and_clients_have_logged_in(tmp_path: Path) -> None:
    docker = Docker()
    engine = Engine(tmp_path, docker, has_rabbitmq=True)

    file = compose.interpolated(engine.variables)
    compose_run.prove(engine, docker.push, RECORDS)

    password = engine.variables["RABBITMQ_PASSWORD"]
    broker = file["services"]["worker"]["environment"]["BROKER_URL"]
    assert broker == f"amqp://morango:{password}@rabbitmq:5672//"
    assert f"default_pass = {password}" in file["configs"]["rabbitmq"]["content"]
    assert docker.profiles == {"--profile=rabbitmq"}

    docker.clients, docker.pushed = [], 0
    with pytest.raises(FailedStepError, match="nobody is connected to RabbitMQ"):
        docker.prove(tmp_path, has_rabbitmq=True)


def test_worker_that_has_begun_no_batch_is_not_killed(tmp_path: Path) -> None:
    docker = Docker()
    docker.begun = []

    assert not compose_run.kill_a_worker(Engine(tmp_path, docker))
    assert not [line for line in docker.commands if line.startswith("docker kill")]


def test_service_that_stays_away_after_a_crash_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_run, "RESTART_SECONDS", 0)
    docker = Docker()
    docker.crashed = -1

    with pytest.raises(AssertionError, match="not started again after 0 s"):
        docker.prove(tmp_path)


def test_containers_that_are_created_again_are_noticed(tmp_path: Path) -> None:
    docker = Docker()
    listed = iter([["one"], ["another"]])

    def recreating(command: Sequence[str]) -> str:
        return "\n".join(next(listed)) if "ps" in command else docker(command)

    with pytest.raises(FailedStepError, match="created containers again"):
        compose_run.prove(Engine(tmp_path, recreating), docker.push, RECORDS)


def test_deployment_of_the_same_engine_keeps_its_image() -> None:
    services = compose.interpolated(dict.fromkeys(compose.required_variables(), "x"))["services"]

    own = compose_engine.own_images({"services": services})["services"]

    assert set(own) == set(services) - {"postgres", "rabbitmq", "redis"}
    assert {service["image"] for service in own.values()} == {IMAGE}
    assert IMAGE not in {service["image"] for service in services.values()}


@pytest.mark.parametrize("missing", ["info", "compose"])
def test_without_an_engine_or_compose_the_reason_is_told(missing: str) -> None:
    def failing(command: Sequence[str]) -> str:
        if command[1] == missing:
            raise CommandError(f"docker {missing}: status 1\nno daemon\n")
        return ""

    assert compose_engine.reason_to_skip(failing) == "no daemon"
    assert compose_engine.reason_to_skip(lambda _: "") is None


def test_program_that_is_missing_or_fails_is_an_error() -> None:
    with pytest.raises(CommandError, match="there is no program 'no-such-program'"):
        compose_engine.execute(["no-such-program"])
    with pytest.raises(CommandError, match="status 3\nso it is"):
        compose_engine.execute(["sh", "-c", "echo so it is; exit 3"])
    assert compose_engine.execute(["echo", "well"]) == "well\n"
