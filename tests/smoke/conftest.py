"""pytest-celery's setup: this project's workers as deployed, and a Redis that is broker and result backend.

They are processes of this machine, or containers with ``--docker``. The tests are the same: they see nodes
through the framework, and results in the database.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisContainer,
    RedisTestBackend,
    RedisTestBroker,
)

from tests.smoke.containers import (
    POSTGRES_PORT,
    default_pytest_celery_network,
    docker_client,
    other_worker_container,
    postgres_container,
    redis_container,
    worker_container,
    worker_image,
)
from tests.smoke.deployment import SETTINGS, DeployedWorker, ForgetfulRedis
from tests.smoke.processes import other_worker_process, redis_process, worker_process
from tests.support.processes import ROOT
from worker.celery import app

if TYPE_CHECKING:  # models can't be imported yet
    from tests.support.schools import School

__all__ = [
    "default_pytest_celery_network",
    "docker_client",
    "other_worker_container",
    "other_worker_process",
    "postgres_container",
    "redis_container",
    "redis_process",
    "worker_container",
    "worker_image",
    "worker_process",
]


TO_BUILD_AN_IMAGE_SECONDS = 1200


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.config.getoption("docker"):
        item.add_marker(pytest.mark.timeout(TO_BUILD_AN_IMAGE_SECONDS))


@pytest.fixture(scope="session")
def in_containers(pytestconfig: pytest.Config) -> bool:
    chosen: bool = pytestconfig.getoption("docker")
    return chosen


@pytest.fixture
def kind(in_containers: bool) -> str:
    """Return the kind of a node, as in the names of fixtures."""
    return "container" if in_containers else "process"


# The database


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest, in_containers: bool) -> None:
    if not in_containers:
        request.getfixturevalue("django_db_modify_db_settings")  # what this one stands in for
        return
    from django.db import connection

    postgres = request.getfixturevalue("postgres_container")
    connection.settings_dict.update(
        HOST="127.0.0.1",
        PORT=str(postgres.ports[POSTGRES_PORT][0]),
        USER=postgres.env["POSTGRES_USER"],
        PASSWORD=postgres.env["POSTGRES_PASSWORD"],
        NAME=postgres.env["POSTGRES_DB"],
    )


@pytest.fixture
def workers_database_url(request: pytest.FixtureRequest, database_url: str, in_containers: bool) -> str:
    """Return the URL of the test database, as workers reach it."""
    if not in_containers:
        return database_url
    postgres = request.getfixturevalue("postgres_container")
    here = f"@127.0.0.1:{postgres.ports[POSTGRES_PORT][0]}/"
    assert here in database_url
    return database_url.replace(here, f"@{postgres.name}:{POSTGRES_PORT.removesuffix('/tcp')}/")


@pytest.fixture
def school(transactional_db: None) -> School:
    from tests.support.schools import School

    return School(rows=200)


# Nodes


class Backend(RedisTestBackend):
    def teardown(self) -> None:
        """Evaluate Django's lazy objects first: the framework's teardown asks every object for its class."""
        gc.collect()
        for result in [candidate for candidate in gc.get_objects() if type(candidate) is AsyncResult]:
            result.backend = None  # or it would look for a Redis that is gone


@pytest.fixture
def default_redis_broker_cls() -> type[ForgetfulRedis]:
    return ForgetfulRedis


@pytest.fixture
def default_redis_broker(request: pytest.FixtureRequest, kind: str) -> Any:
    return request.getfixturevalue(f"redis_{kind}")


@pytest.fixture
def default_worker_container(request: pytest.FixtureRequest, kind: str) -> Any:
    return request.getfixturevalue(f"worker_{kind}")


@pytest.fixture
def other_worker(request: pytest.FixtureRequest, kind: str, celery_setup_app: Celery) -> CeleryTestWorker:
    """One more of the same kind."""
    return CeleryTestWorker(request.getfixturevalue(f"other_worker_{kind}"), celery_setup_app)


@pytest.fixture
def default_worker_container_cls() -> type[DeployedWorker]:
    return DeployedWorker


@pytest.fixture
def default_worker_env(celery_worker_cluster_config: dict[str, Any], workers_database_url: str) -> Any:
    return DeployedWorker.initial_env(celery_worker_cluster_config, {"DATABASE_URL": workers_database_url})


@pytest.fixture
def default_worker_initial_content() -> dict[str, bytes]:
    """Return files that the image lacks."""
    return {name: (ROOT / "tests" / name).read_bytes() for name in SETTINGS}


# The setup, which the framework puts together of these


@pytest.fixture
def celery_broker_cluster(default_redis_broker: RedisContainer) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(RedisTestBroker(default_redis_broker))


@pytest.fixture
def celery_backend_cluster(default_redis_broker: RedisContainer) -> Iterator[CeleryBackendCluster]:
    backend = Backend(default_redis_broker)
    yield CeleryBackendCluster(backend)
    backend.teardown()


@pytest.fixture
def celery_worker_cluster(celery_setup_worker: CeleryTestWorker) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(celery_setup_worker)


@pytest.fixture
def celery_setup_app(celery_setup_app: Celery) -> Iterator[Celery]:
    """Set the framework's app as the current one; restore the project's afterwards."""
    yield celery_setup_app
    celery_setup_app.close()
    app.set_current()
