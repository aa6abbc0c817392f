"""Real brokers, and the tests that each of them has to pass: ``make brokers``.

A broker whose binary isn't installed is skipped, with the name of what is missing. RabbitMQ is started from
``rabbitmq-server`` on PATH, in the folders of packages or named in RABBITMQ_SERVER; Valkey from
``valkey-server`` on PATH or named in VALKEY_SERVER.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery

from tests.brokers.servers import Broker, RabbitMQ, Redis, Valkey
from tests.support.processes import LoggedProcess
from tests.support.workers import OURS, StartWorker
from worker.celery import app as deployed
from worker.services import ServiceError

SERVERS: dict[str, type[Broker]] = {"redis": Redis, "valkey": Valkey, "rabbitmq": RabbitMQ}
CLASSIC, QUORUM = "classic", "quorum"
KINDS = [("redis", CLASSIC), ("valkey", CLASSIC), ("rabbitmq", CLASSIC), ("rabbitmq", QUORUM)]

_started: dict[str, Broker] = {}


@pytest.fixture(scope="session", autouse=True)
def _stops_servers() -> Iterator[None]:
    yield
    for server in _started.values():
        server.end()


def running(name: str, factory: pytest.TempPathFactory) -> Any:
    """Return a server of this kind, which lasts until the last test.

    It is a fresh one if a test has left it in pieces.
    """
    if name not in _started:
        try:
            server = SERVERS[name](factory.mktemp(name))
            server.start()
        except ServiceError as error:
            pytest.skip(str(error))
        _started[name] = server
    return _started[name]


@dataclass
class Place:
    """A broker, and the queue of the present test in it."""

    server: Any
    queue: str
    queue_type: str
    app: Celery
    """The application of this process."""
    start_process: StartWorker
    workers_environment: dict[str, str]
    started: list[LoggedProcess] = field(default_factory=list)

    @property
    def is_rabbitmq(self) -> bool:
        return isinstance(self.server, RabbitMQ)

    def start_worker(self, concurrency: int = 1, **environment: str) -> LoggedProcess:
        return self.start_process(concurrency, queue=self.queue, **(self.environment | environment))

    def start_listening_worker(self) -> LoggedProcess:
        """Start a worker that hears the events of others too, as workers do by default."""
        options = [
            "--loglevel=INFO",
            f"--hostname={self.queue}@%h",
            "--concurrency=1",
            f"--queues={self.queue}",
        ]
        log = self.server.folder / f"{self.queue}.log"
        worker = LoggedProcess([*OURS, *options], log, {**self.workers_environment, **self.environment})
        self.started.append(worker)
        worker.wait_for_log(" ready.")
        return worker

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BROKER_URL": self.server.url,
            "DJANGO_SETTINGS_MODULE": "tests.brokers.settings",
            "QUEUE": self.queue,
            "QUEUE_TYPE": self.queue_type,
            "MORANGO_CELERY_BATCH_SIZE_RECORDS": "40",
        }

    def declare(self) -> None:
        """Declare the queue, as the first message or worker does."""
        with self.app.connection_for_write() as connection:
            self.app.amqp.default_queue(connection.default_channel).declare()


def application(url: str, queue: str, queue_type: str, **changes: Any) -> Celery:
    """Return an application like the workers', as the current one."""
    names = ("task_default_queue", "task_default_exchange", "task_default_routing_key")
    quorum = {
        "task_default_queue_type": QUORUM,
        "task_default_exchange_type": "topic",
        "task_queue_max_priority": None,
    }
    app = Celery("brokers", broker=url, fixups=set())
    app.config_from_object("morango_celery.celery_settings", namespace="CELERY")
    app.conf.update({**dict.fromkeys(names, queue), **(quorum if queue_type == QUORUM else {}), **changes})
    app.set_current()
    return app


Open = Callable[[str, str], Place]


@pytest.fixture
def open_place(
    tmp_path_factory: pytest.TempPathFactory, celery_worker_process: StartWorker, database_url: str
) -> Iterator[Open]:
    """Yield a function that makes an application for a broker, and a queue there."""
    places: list[Place] = []

    def open_one(name: str, queue_type: str) -> Place:
        server = running(name, tmp_path_factory)
        queue = f"tests-{uuid.uuid4().hex[:8]}"
        app = application(server.url, queue, queue_type)
        environment = {"DATABASE_URL": database_url}
        places.append(Place(server, queue, queue_type, app, celery_worker_process, environment))
        return places[-1]

    yield open_one
    for place in places:
        for worker in place.started:
            worker.kill()
        place.app.close()
    deployed.set_current()


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(kind))
def place(request: pytest.FixtureRequest, open_place: Open) -> Place:
    """Return each of the brokers in turn, with an application that sends to it."""
    name, queue_type = request.param
    return open_place(name, queue_type)


@pytest.fixture
def rabbitmq(open_place: Open) -> Place:
    """Return a RabbitMQ with a classic queue."""
    return open_place("rabbitmq", CLASSIC)
