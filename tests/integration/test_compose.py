"""The services of docker-compose.yml: their configuration, and a sync through all of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from django.core.management import get_commands
from django.db import connection
from django.urls import resolve
from morango.models import DatabaseIDModel
from morango.models.core import sha2_uuid
from morango.models.utils import _do_salted_hash
from redis import AuthenticationError, Redis

from morango_celery.contrib import gunicorn
from morango_celery.models import Run
from morango_celery.worker.shutdown import DYING_SECONDS, LEAVING_SECONDS
from tests.support import compose, roles
from tests.support.compose import Deployment
from tests.support.processes import PATIENCE_SECONDS, ROOT, LoggedProcess
from tests.support.sync_state import the_run
from tests.support.waiting import until
from worker.demo import server

FILLED_IN = {name: f"{name.lower().replace('_', '')}0123456789" for name in compose.required_variables()}
LONG_RUNNING = ["flower", "postgres", "rabbitmq", "recover", "redis", "web", "worker"]
RECORDS = 60
NO_HEADERS: dict[str, str] = {}
DOCUMENTATION = ROOT / "docs/how-to/deploy.md"


@pytest.fixture  # of a Redis of its own; where there is none, `redis_url` skips
def deployment(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """Yield the deployment on a database with the roles and passwords that a new PostgreSQL gets."""
    deployment = Deployment(FILLED_IN, database_url, tmp_path)
    with roles.roles():
        roles.execute(deployment.file["configs"]["passwords"]["content"])
        yield deployment
        for process in deployment.started.values():
            process.kill()


def test_there_is_no_default_for_what_is_secret() -> None:
    passwords = {f"{name}_PASSWORD" for name in ("POSTGRES", "MIGRATION", "APPLICATION", "REDIS", "FLOWER")}

    assert compose.required_variables() == {*passwords, "SECRET_KEY", "MORANGO_INSTANCE"}
    for name in compose.required_variables():
        for variables in ({**FILLED_IN, name: ""}, {k: v for k, v in FILLED_IN.items() if k != name}):
            with pytest.raises(compose.MissingVariableError, match=f"required variable {name} is missing"):
                compose.interpolated(variables)


def test_example_names_every_variable_and_no_secret() -> None:
    lines = re.findall(r"^(#?)([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)

    assert {name for _, name, _ in lines} == compose.known_variables()
    assert {name for commented, name, value in lines if not commented} == compose.required_variables()
    assert [name for commented, name, value in lines if not commented and value] == []


def test_only_the_endpoint_and_flower_are_published_and_to_this_machine_alone() -> None:
    services = compose.interpolated(FILLED_IN)["services"]

    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"web": ["127.0.0.1:8000:8000"], "flower": ["127.0.0.1:5555:5555"]}


def test_services_are_confined_watched_and_pinned() -> None:
    file = compose.interpolated(FILLED_IN)
    services = file["services"]

    assert sorted(services) == sorted([*LONG_RUNNING, "migrate"])
    for name, service in services.items():
        assert re.search(r":\d+\.\d+[.\w-]*$", service["image"]), f"{name}: the image has no version"
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert isinstance(service.get("command", []), list), f"{name}: a shell would keep signals to itself"
        if name == "migrate":
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"], name
    for name in ("migrate", "web", "worker", "recover", "flower"):
        assert services[name]["read_only"] is True
        assert services[name]["tmpfs"]
    assert "mem_limit" in services["worker"]
    assert not {"container_name", "ports"} & set(services["worker"]), "it couldn't be scaled"
    assert file["networks"]["inside"]["internal"] is True
    assert {name for name, service in services.items() if "outside" in service["networks"]} == {
        "web",
        "flower",
    }


def test_grace_periods_exceed_the_time_to_stop() -> None:
    services = compose.interpolated(FILLED_IN)["services"]

    worker, web = services["worker"], services["web"]
    assert worker["command"][:3] == ["python", "-m", "morango_celery.worker"]  # which heeds SIGTERM
    shutdown_seconds = int(worker["environment"]["WORKER_SOFT_SHUTDOWN_SECONDS"])
    assert compose.seconds(worker["stop_grace_period"]) > shutdown_seconds + DYING_SECONDS + LEAVING_SECONDS
    assert "--config=python:morango_celery.contrib.gunicorn" in web["command"]
    assert compose.seconds(web["stop_grace_period"]) > gunicorn.graceful_timeout


def test_one_service_builds_the_image_and_all_others_wait_for_it() -> None:
    services = compose.interpolated(FILLED_IN)["services"]

    assert [name for name, service in services.items() if "build" in service] == ["migrate"]
    sharing = {name for name, one in services.items() if one["image"] == services["migrate"]["image"]}
    for name in sharing - {"migrate"}:
        assert services[name]["pull_policy"] == "never"
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert len(sharing) == 5


def test_first_health_check_comes_soon() -> None:
    services = compose.interpolated(FILLED_IN)["services"]

    checks = {name: services[name]["healthcheck"] for name in LONG_RUNNING}
    assert {name for name, check in checks.items() if compose.seconds(check["start_interval"]) > 5} == set()


def test_image_runs_no_shell_and_not_as_root() -> None:
    lines = (ROOT / "worker/Dockerfile").read_text().splitlines()

    users = [line.removeprefix("USER ") for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].isdigit()
    assert int(users[-1]) > 0
    assert [line for line in lines if line.startswith(("CMD ", "ENTRYPOINT ")) and '["' not in line] == []


def test_services_log_in_to_the_database_as_roles_that_it_has() -> None:
    file = compose.interpolated(FILLED_IN)
    services = file["services"]

    superuser = services["postgres"]["environment"]
    logins = {
        name: urlsplit(service["environment"]["DATABASE_URL"])
        for name, service in services.items()
        if "DATABASE_URL" in service.get("environment", {})
    }
    assert {name: login.username for name, login in logins.items()} == {
        "migrate": roles.MIGRATION,
        **dict.fromkeys(("web", "worker", "recover"), roles.APPLICATION),
    }
    passwords = file["configs"]["passwords"]["content"]
    for login in logins.values():
        assert (login.hostname, login.port, login.path) == ("postgres", 5432, f"/{superuser['POSTGRES_DB']}")
        assert f"ALTER ROLE {login.username} PASSWORD '{login.password}';" in passwords
        assert login.password != superuser["POSTGRES_PASSWORD"]
    assert (ROOT / file["configs"]["grants"]["file"]).read_text() == roles.GRANTS
    executed = [config["target"] for config in services["postgres"]["configs"]]
    assert executed == sorted(executed)
    assert [config["source"] for config in services["postgres"]["configs"]] == ["grants", "passwords"]


def test_flower_is_told_neither_the_key_nor_the_database() -> None:
    flower = compose.interpolated(FILLED_IN)["services"]["flower"]

    told = {"REDIS_URL", "BROKER_URL", "FLOWER_USER", "FLOWER_PASSWORD", "FLOWER_READ_ONLY"}
    assert set(flower["environment"]) == told


def test_rabbitmq_is_started_with_its_profile_alone_and_waited_for_then() -> None:
    services = compose.interpolated({**FILLED_IN, "BROKER_URL": "amqp://rabbitmq//"})["services"]

    assert {name: service["profiles"] for name, service in services.items() if "profiles" in service} == {
        "rabbitmq": ["rabbitmq"]
    }
    connected = {
        name for name, service in services.items() if service.get("environment", {}).get("BROKER_URL")
    }
    assert connected == {"migrate", "web", "worker", "recover", "flower"}
    for name in connected - {"migrate"}:
        needed = services[name]["depends_on"]["rabbitmq"]
        assert needed == {"condition": "service_healthy", "required": False}


def test_documentation_names_addresses_that_there_are() -> None:
    addresses = re.findall(r"http://localhost:8000(/[^\s`,)]*)", DOCUMENTATION.read_text())

    pages = {path for path in addresses if path != "/"}
    assert "/admin/" in pages
    for path in pages:
        resolve(path, urlconf="worker.urls")


def test_documentation_fills_in_the_example(tmp_path: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", DOCUMENTATION.read_text(), re.MULTILINE | re.DOTALL)
    (filling_in,) = [block for block in blocks if ".env.example" in block]
    shutil.copy(ROOT / ".env.example", tmp_path)

    subprocess.run(["/bin/sh", "-euc", filling_in], cwd=tmp_path, check=True)

    lines = re.findall(r"^([A-Z_]+)=(\w+)$", (tmp_path / ".env").read_text(), re.MULTILINE)
    assert {name for name, _ in lines} == compose.required_variables()
    assert len({value for _, value in lines}) == len(lines)
    compose.interpolated(dict(lines))


def test_documentation_names_services_and_commands_that_there_are() -> None:
    text = DOCUMENTATION.read_text()

    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*LONG_RUNNING, "migrate"}
    asked = re.findall(r"docker compose (?:run --rm|exec(?: -T)?|stop|logs --follow) (\w+)", text)
    assert asked
    assert set(asked) <= set(LONG_RUNNING)
    commands = set(re.findall(r"python -m worker (\w+)", text))
    assert {"shell", "recover_runs"} <= commands <= set(get_commands())


@pytest.mark.needs_postgresql
@pytest.mark.parametrize(("behind_tls", "status"), [("0", 200), ("1", 301)])
def test_behind_tls_only_the_health_check_goes_without(
    deployment: Deployment, behind_tls: str, status: int
) -> None:
    deployment.services["web"]["environment"]["BEHIND_TLS"] = behind_tls
    web = deployment.start("web")

    web.wait_until(partial(deployment.is_healthy, "web"), "healthy")

    url = f"{deployment.url(8000)}/admin/login/"
    plain, proxied = (
        requests.get(url, headers=headers, allow_redirects=False, timeout=PATIENCE_SECONDS)
        for headers in (NO_HEADERS, {"X-Forwarded-Proto": "https"})
    )
    assert (plain.status_code, proxied.status_code) == (status, 200)
    assert [cookie.secure for cookie in proxied.cookies] == [behind_tls == "1"]


@pytest.mark.needs_postgresql
def test_sync_goes_through_all_services(deployment: Deployment, migrated_device: Path) -> None:
    # Given the deployment, every service started by its own command and healthy by its own check
    access = server.found_school()
    redis = deployment.start("redis")
    redis.wait_until(lambda: deployment.is_healthy("redis"), "healthy")
    assert_redis_keeps_what_it_has(deployment)
    DatabaseIDModel.objects.all().delete()
    assert deployment.start("migrate").wait_until_ended() == 0
    assert DatabaseIDModel.objects.get().current, "or its first two requests would give it an identity each"
    deployment.collect_static_files()
    others = {name: deployment.start(name) for name in ("web", "recover", "flower", "worker")}
    for name, process in others.items():
        process.wait_until(partial(deployment.is_healthy, name), f"healthy: {name}")
    assert_postgres_check_works(deployment)

    # Then all of them are the one Morango instance that was named, and Flower asks who is there
    url = deployment.url(8000)
    assert requests.get(f"{url}/api/morango/v1/morangoinfo/1/", timeout=PATIENCE_SECONDS).json()[
        "instance_id"
    ] == instance_of(FILLED_IN["MORANGO_INSTANCE"])
    assert requests.get(deployment.url(5555), timeout=PATIENCE_SECONDS).status_code == 401
    style = requests.get(f"{url}/static/admin/css/base.css", timeout=PATIENCE_SECONDS)
    assert style.headers["Content-Type"].startswith("text/css")
    login = ("operator", FILLED_IN["FLOWER_PASSWORD"])
    assert requests.get(deployment.url(5555), auth=login, timeout=PATIENCE_SECONDS).status_code == 200

    # When a device syncs
    shutil.copy(migrated_device, deployment.folder)
    device = LoggedProcess(
        [
            *("worker.demo.sender", "--server", f"{url}/", "--school", access.school_id),
            *("--account", access.account, "--records", str(RECORDS), "--plain"),
        ],
        deployment.folder / "device.log",
        {
            "DATABASE_URL": f"sqlite:///{deployment.folder / 'device.sqlite3'}",
            "REDIS_URL": "",
            "DEMO_PASSWORD": access.password,
            "NO_PROXY": "127.0.0.1",
        },
    )
    try:
        assert device.wait_until_ended() == 0, device.log()
    finally:
        device.stop()

    # Then a worker has deserialized its records
    run = until(lambda: Run.objects.filter(state=Run.State.COMPLETED).exists() and the_run(), "completed")
    assert (run.saved, run.failed) == (RECORDS, 0)

    # And when they are stopped, then each ends in time, and by its own check is not healthy any more
    stop_all(deployment, [*others.values()], [deployment.services[name] for name in others])
    old = deployment.folder / "recovered"
    os.utime(old, (0, 0))
    checks = {name: deployment.health_check(name) for name in others}
    assert [name for name, check in checks.items() if check.wait(PATIENCE_SECONDS) == 0] == []
    stop_all(deployment, [redis], [deployment.services["redis"]])
    assert not deployment.is_healthy("redis")


def stop_all(deployment: Deployment, processes: list[LoggedProcess], services: list[dict[str, str]]) -> None:
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    for process, service in zip(processes, services, strict=True):
        assert process.wait_until_ended(compose.seconds(service["stop_grace_period"])) == 0, process.log()


def assert_redis_keeps_what_it_has(deployment: Deployment) -> None:
    port = deployment.ports[6379]
    with Redis(port=port, password=FILLED_IN["REDIS_PASSWORD"]) as client:
        for name, value in (("appendonly", "yes"), ("maxmemory-policy", "noeviction")):
            assert client.config_get(name) == {name: value}
        assert int(client.config_get("maxmemory")["maxmemory"]) < 512 * 2**20, "less than its container has"
    with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def assert_postgres_check_works(deployment: Deployment) -> None:
    """Assert that the health check of the database service tells the tests' database from none."""
    if shutil.which("pg_isready", path=deployment.path) is None:
        return  # neither the wheel's nor the system's: the tests' PostgreSQL is elsewhere
    deployment.ports[5432] = int(connection.settings_dict["PORT"])
    assert deployment.is_healthy("postgres")
    deployment.ports[5432] = 1
    assert not deployment.is_healthy("postgres")
    del deployment.ports[5432]


def instance_of(name: str) -> str:
    """Return the id that Morango makes of the variables, on any machine."""
    database = DatabaseIDModel.objects.get(current=True).id
    identity: str = sha2_uuid(database, _do_salted_hash(name), _do_salted_hash(name))
    return identity
