"""System checks of Celery's settings: pools, time limits, messages, and what a deployment needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from celery import Celery, current_app
from django.core import checks
from django.db import connection
from pytest_django import Settings

from morango_celery.worker.pools import Kind, kind
from tests.unit.checks import found
from worker.celery import app as deployed

IN_TIME = {"socket_timeout": 5, "socket_connect_timeout": 5}

SOUND = {
    "broker_url": "redis://:Zr4Qk0vWm@redis:6379/0",
    "broker_transport_options": {**IN_TIME, "visibility_timeout": 600},
    "task_time_limit": 300,
    "task_soft_time_limit": 270,
}


class Configure(Protocol):
    def __call__(self, **options: Any) -> None: ...


@pytest.fixture
def celery(settings: Settings) -> Iterator[Configure]:
    """Return a function that makes this process's Celery application, valid but for the given options."""
    if connection.vendor == "sqlite":  # where Celery only matters to who wants it
        settings.MORANGO_CELERY = {"IN_PROCESS": False}

    def configure(**options: Any) -> None:
        application = Celery("host", fixups=[], changes={**SOUND, **options})
        application.set_current()

    configure()
    yield configure
    deployed.set_current()


@pytest.fixture
def one_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORANGO_SYSTEM_ID", "school-server")
    monkeypatch.setenv("MORANGO_NODE_ID", "school-server")


class TestWorkers:
    """Celery's settings for workers."""

    def test_sound_options_pass_without_a_message(self, celery: Configure) -> None:
        assert found() == {}

    @pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet", "celery.concurrency.thread:TaskPool"])
    def test_threads_are_refused(self, celery: Configure, pool: str) -> None:
        celery(worker_pool=pool)
        (text,) = found()["E006"]
        assert text.startswith(f"Celery's worker_pool is {pool!r}; a record that never returns")
        assert 'to "prefork"' in text

    @pytest.mark.parametrize("pool", ["nonsense", "no.such:Pool"])
    def test_value_that_is_no_pool_is_refused(self, celery: Configure, pool: str) -> None:
        celery(worker_pool=pool)
        (text,) = found()["E006"]
        assert f"{pool!r}, which can't be imported" in text

    def test_pool_of_one_is_warned_of(self, celery: Configure) -> None:
        celery(worker_pool="solo")
        assert set(found()) == {"W003"}

    @pytest.mark.parametrize("pool", ["prefork", "processes", "celery.concurrency.prefork:TaskPool", None])
    def test_pool_of_processes_passes(self, celery: Configure, pool: str | None) -> None:
        celery(worker_pool=pool)
        assert found() == {}
        assert pool is None or kind(pool) is Kind.PROCESSES

    @pytest.mark.parametrize(
        ("hard", "soft", "text"),
        [
            (None, None, "no task_time_limit"),
            (None, 270, "no task_time_limit"),
            (300, None, "no task_soft_time_limit"),
            (300, 300, "is not below"),
        ],
    )
    def test_missing_time_limits_are_a_warning(
        self, celery: Configure, hard: int | None, soft: int | None, text: str
    ) -> None:
        celery(task_time_limit=hard, task_soft_time_limit=soft)
        assert text in found()["W004"][0]

    def test_comparing_needs_workers(self, settings: Settings, celery: Configure) -> None:
        settings.MORANGO_CELERY = {"MODE": "compare", "IN_PROCESS": True}
        (text,) = found()["W013"]
        assert "`manage.py compare_with_morango`" in text

        settings.MORANGO_CELERY = {"MODE": "compare", "IN_PROCESS": False}
        assert "W013" not in found()

    def test_workers_on_sqlite_are_refused(self, settings: Settings) -> None:
        settings.MORANGO_CELERY = {"IN_PROCESS": False}
        ids = {message.id for message in checks.run_checks(tags=["morango_celery"])}
        assert ("morango_celery.E009" in ids) is (connection.vendor == "sqlite")

    def test_runs_in_process_need_no_celery(
        self, celery: Configure, settings: Settings, one_instance: None
    ) -> None:
        settings.MORANGO_CELERY = {"IN_PROCESS": True}
        celery(
            broker_url=None,
            worker_pool="threads",
            task_time_limit=None,
            task_serializer="pickle",
            accept_content=[],
        )
        assert found(deploy=True) == {}


class TestMessages:
    """Celery's settings for its broker."""

    @pytest.mark.parametrize(
        ("url", "options", "visible"),
        [
            ("redis://redis/0", {"visibility_timeout": 300}, 300),
            ("amqp://rabbit//;rediss://redis/0", {"visibility_timeout": 30}, 30),
            ("sqs://", {"visibility_timeout": 60.5}, 60.5),
        ],
    )
    def test_message_is_not_delivered_again_while_it_is_carried_out(
        self, celery: Configure, url: str, options: dict[str, float], visible: float
    ) -> None:
        celery(broker_url=url, broker_transport_options=options)
        (text,) = found()["E007"]
        assert text.startswith(f"Celery's visibility_timeout ({visible} s) is not above")
        assert "600 seconds" in text

    def test_transports_default_visibility_timeout_is_checked(self, celery: Configure) -> None:
        celery(broker_transport_options=IN_TIME, task_time_limit=3600, task_soft_time_limit=3500)
        assert "visibility_timeout (3600 s)" in found()["E007"][0]
        celery(broker_url="memory://", task_time_limit=3600, task_soft_time_limit=3500)
        assert found() == {}

    @pytest.mark.parametrize(
        ("given", "missing"),
        [
            (None, "no socket_timeout and no socket_connect_timeout"),
            ({"socket_timeout": None, "socket_connect_timeout": 5}, "no socket_timeout:"),
            ({"socket_timeout": 0.5}, "no socket_connect_timeout:"),
        ],
    )
    @pytest.mark.parametrize(
        "url", ["redis://redis/0", "sentinel://one:1;sentinel://two:1", "redis+socket:///s"]
    )
    def test_redis_without_timeouts_is_a_warning(
        self, celery: Configure, url: str, given: dict[str, float] | None, missing: str
    ) -> None:
        celery(broker_url=url, broker_transport_options=given)
        (text,) = found()["W009"]
        assert f"broker_transport_options have {missing}" in text
        assert "for ever" in text
        assert ('"socket_timeout": 5' in text) is ("no socket_timeout" in missing)
        assert ('"socket_connect_timeout": 5' in text) is ("no socket_connect_timeout" in missing)

    def test_other_brokers_have_timeouts_of_their_own(self, celery: Configure) -> None:
        celery(broker_url="amqp://rabbit//", broker_transport_options=None)
        assert "W009" not in found()

    @pytest.mark.parametrize("url", [None, ""])
    def test_project_without_a_broker_is_told(self, celery: Configure, url: str | None) -> None:
        celery(broker_url=url)
        (text,) = found()["W002"]
        assert "from .celery import app" in text

    @pytest.mark.parametrize(
        ("options", "message_id", "text"),
        [
            ({"task_serializer": "pickle"}, "E008", "task_serializer is 'pickle'"),
            ({"accept_content": ["yaml"]}, "E008", "accept_content is ['yaml']"),
            ({"accept_content": ["json", "pickle"]}, "W005", "accept_content has ['pickle'] besides JSON"),
        ],
    )
    def test_messages_are_json(
        self, celery: Configure, options: dict[str, Any], message_id: str, text: str
    ) -> None:
        celery(**options)
        (only,) = found()[message_id]
        assert text in only


class TestDeployment:
    """Only with ``--deploy``."""

    def test_sound_options_pass_without_a_message(self, celery: Configure, one_instance: None) -> None:
        assert found(deploy=True) == {}

    @pytest.mark.parametrize("missing", ["MORANGO_SYSTEM_ID", "MORANGO_NODE_ID"])
    @pytest.mark.parametrize("value", [None, "ab"])
    def test_machines_without_a_common_identity_are_a_warning(
        self,
        celery: Configure,
        one_instance: None,
        monkeypatch: pytest.MonkeyPatch,
        missing: str,
        value: str | None,
    ) -> None:
        if value is None:
            monkeypatch.delenv(missing)
        else:
            monkeypatch.setenv(missing, value)
        (text,) = found(deploy=True)["W007"]
        assert text.startswith(f"The environment has no {missing}:")
        assert found() == {}


def test_deployments_celery_is_checked() -> None:
    assert current_app.main == deployed.main == "worker"
