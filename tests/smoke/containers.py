"""Nodes of pytest-celery as containers, from the images that docker-compose.yml names or builds.

Workers are confined as they are when deployed. PostgreSQL is a container, too: one of this machine listens
where no container can reach it.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from pytest_celery import DEFAULT_WORKER_CONTAINER_TIMEOUT, REDIS_CONTAINER_TIMEOUT
from pytest_docker_tools import build, container, fxtr, network
from pytest_docker_tools.wrappers import Container

from tests.smoke.deployment import SERVICES, DeployedWorker, ForgetfulRedis
from tests.support.processes import ROOT
from tests.support.workers import unavailable

POSTGRES_PORT = "5432/tcp"
IMAGE = SERVICES["migrate"]["build"]


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """Return the framework's client, the base of all containers."""
    client = engine()
    yield client
    client.close()


def engine() -> docker.DockerClient:
    """Return the engine that the environment names (DOCKER_HOST), by default this machine's, if it
    answers."""
    try:
        client = docker.from_env()
        client.ping()
        return client
    except DockerException as error:
        why = str(error)
    with warnings.catch_warnings():  # the library leaves open what it couldn't connect
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return unavailable(
        f"No Docker engine answers ({why}). Start one, name it by DOCKER_HOST, or leave out --docker: "
        "then workers and Redis are processes."
    )


def confinement(service: dict[str, Any]) -> dict[str, Any]:
    """Return the limits of a service of docker-compose.yml, in docker-py's form."""
    same = ("cap_drop", "init", "mem_limit", "read_only", "security_opt")
    return {
        **{name: service[name] for name in same},
        "tmpfs": dict(mount.split(":", 1) for mount in service["tmpfs"]),
    }


class PostgresContainer(Container):
    def ready(self) -> bool:
        """Return True if the deployment's health check succeeds."""
        _, *check = SERVICES["postgres"]["healthcheck"]["test"]
        return bool(super().ready()) and self.exec_run(check)[0] == 0


default_pytest_celery_network = network(scope="session")

postgres_container = container(
    scope="session",
    image=SERVICES["postgres"]["image"],
    environment=SERVICES["postgres"]["environment"],
    shm_size=SERVICES["postgres"]["shm_size"],
    ports={POSTGRES_PORT: ("127.0.0.1",)},
    network="{default_pytest_celery_network.name}",
    wrapper_class=PostgresContainer,
    timeout=REDIS_CONTAINER_TIMEOUT,
)

redis_container = container(
    image="{default_redis_broker_image}",
    command=fxtr("default_redis_broker_command"),
    ports=fxtr("default_redis_broker_ports"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=ForgetfulRedis,
    timeout=REDIS_CONTAINER_TIMEOUT,
)

worker_image = build(
    path=str(ROOT / IMAGE["context"]), dockerfile=IMAGE["dockerfile"], tag="morango-celery:smoke"
)

_WORKER: dict[str, Any] = {
    "image": "{worker_image.id}",
    "environment": fxtr("default_worker_env"),
    "command": fxtr("default_worker_command"),
    "network": "{default_pytest_celery_network.name}",
    "volumes": {"{default_worker_volume.name}": {"bind": "/app/tests", "mode": "ro"}},
    "wrapper_class": DeployedWorker,
    "timeout": DEFAULT_WORKER_CONTAINER_TIMEOUT,
    **confinement(SERVICES["worker"]),
}
worker_container = container(**_WORKER)
other_worker_container = container(**_WORKER)
