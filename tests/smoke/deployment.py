"""Services of docker-compose.yml as pytest-celery's nodes, be they processes or containers."""

from __future__ import annotations

import secrets
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from tests.support import compose
from worker.services import free_port

SERVICES: dict[str, dict[str, Any]] = compose.interpolated(
    {
        **{name: secrets.token_hex(16) for name in compose.required_variables()},
        "WORKER_CONCURRENCY": "1",  # a worker that waits in the middle of a batch does no other one
    }
)["services"]

FOR_TESTS = {
    "DJANGO_SETTINGS_MODULE": "tests.faults.outage_settings",
    "MORANGO_CELERY_BATCH_SIZE_RECORDS": "40",
}
"""Differences from the deployment: many batches of few records."""

SETTINGS = ("__init__.py", "faults/__init__.py", "faults/outage_settings.py")
"""The files that this takes, in the folder of tests."""


class DeployedWorker(CeleryWorkerContainer):
    @classmethod
    def worker_name(cls) -> str:
        return "celery"

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        return [
            *SERVICES["worker"]["command"],
            f"--hostname={cls.worker_name()}@%h",
            *("--without-gossip", "--without-mingle"),  # a second less to start
            *args,
        ]

    @classmethod
    def initial_env(cls, celery_worker_cluster_config: dict[str, Any], initial: Any = None) -> dict[str, str]:
        (broker_url,) = celery_worker_cluster_config["celery_broker_cluster_config"]["urls"]
        environment: dict[str, str] = super().initial_env(
            celery_worker_cluster_config,
            {**SERVICES["worker"]["environment"], "REDIS_URL": broker_url, **FOR_TESTS, **(initial or {})},
        )
        return environment


class ForgetfulRedis(RedisContainer):
    """The framework's Redis: it keeps nothing on disk, which is worse than the deployment's."""

    @classmethod
    def image(cls) -> str:
        image: str = SERVICES["redis"]["image"]
        return image

    @classmethod
    def ports(cls) -> dict[str, tuple[str, int]]:
        """Return the ports of a container on this machine: the same ones again after a restart."""
        return {"6379/tcp": ("127.0.0.1", free_port())}
