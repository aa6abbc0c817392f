"""System checks: each names the fault, its place, and the remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from celery import Celery, current_app
from django.core import checks
from django.db import connection
from morango.constants import settings as morango_defaults
from pytest_django import Settings

from morango_celery.checks import operations
from morango_celery.db.postgresql import PostgreSQL
from morango_celery.db.sqlite import SQLite
from morango_celery.operations import DeserializeOperation
from morango_celery.worker.pools import Kind, kind
from tests.support.processes import ROOT
from worker.celery import app as deployed

OURS = "morango_celery.operations:DeserializeOperation"
STREAMING = "morango_celery.operations:StreamingSerializeOperation"
THEIRS = morango_defaults.MORANGO_DESERIALIZE_OPERATIONS
PRODUCER, RECEIVER = THEIRS[:2]

IN_TIME = {"socket_timeout": 5, "socket_connect_timeout": 5}

SOUND = {
    "broker_url": "redis://:Zr4Qk0vWm@redis:6379/0",
    "broker_transport_options": {**IN_TIME, "visibility_timeout": 600},
    "task_time_limit": 300,
    "task_soft_time_limit": 270,
}


class Derived(DeserializeOperation):
    """A host project's subclass of our operation."""


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


def found(*, deploy: bool = False) -> dict[str, list[str]]:
    """Return the text and hint of each error and warning, by its id, without SQLite's single writer."""
    by_id: dict[str, list[str]] = {}
    for message in checks.run_checks(tags=["morango_celery"], include_deployment_checks=deploy):
        if message.level > checks.INFO:
            by_id.setdefault(str(message.id).removeprefix("morango_celery."), []).append(
                f"{message.msg} {message.hint}"
            )
    if connection.vendor == "sqlite":
        by_id.pop("E009", None)
    return by_id


class TestOperations:
    """Operations of Morango's middleware."""

    def test_our_operation_before_morangos_passes(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = [PRODUCER, f"{__name__}:Derived", *THEIRS]
        assert found() == {}

    def test_project_that_forgot_ours_is_told(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = THEIRS
        (text,) = found()["W001"]
        assert text.startswith(f"MORANGO_DESERIALIZE_OPERATIONS has no {OURS!r}")
        assert f"Put {OURS!r} first" in text

    def test_another_operation_may_ask_ours(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = THEIRS
        monkeypatch.setattr(operations, "ASKED_BY", {PRODUCER})
        assert "W001" not in found()
        monkeypatch.setattr(operations, "ASKED_BY", {"some.others:Operation"})
        assert "W001" in found()

    @pytest.mark.parametrize(
        ("setting", "operations", "ours"),
        [
            ("MORANGO_DESERIALIZE_OPERATIONS", [*THEIRS, OURS], OURS),
            ("MORANGO_DESERIALIZE_OPERATIONS", [PRODUCER, RECEIVER, OURS], OURS),
            (
                "MORANGO_SERIALIZE_OPERATIONS",
                [*morango_defaults.MORANGO_SERIALIZE_OPERATIONS, STREAMING],
                STREAMING,
            ),
        ],
    )
    def test_operation_after_one_that_takes_the_stage_is_an_error(
        self, settings: Settings, setting: str, operations: list[str], ours: str
    ) -> None:
        setattr(settings, setting, operations)
        (text,) = found()["E004"]
        assert text.startswith(f"{setting} has {ours!r} after 'morango.sync.operations:")
        assert f"Put {ours!r} first" in text

    def test_serializing_may_be_left_to_morango(self, settings: Settings) -> None:
        settings.MORANGO_SERIALIZE_OPERATIONS = morango_defaults.MORANGO_SERIALIZE_OPERATIONS
        assert found() == {}

    def test_producers_need_morangos_own(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = [OURS]
        (text,) = found()["E005"]
        assert PRODUCER in text

    @pytest.mark.parametrize("setting", ["MORANGO_DESERIALIZE_OPERATIONS", "MORANGO_SERIALIZE_OPERATIONS"])
    @pytest.mark.parametrize(
        ("operations", "problem"),
        [
            (OURS, "must be a list of texts"),
            ([OURS, None], "must be a list of texts"),
            (["morango_celery.operations.DeserializeOperation"], "can't be imported"),
            (["morango_celery.operations:Deserialize"], "can't be imported"),
            (["morango_celery.operation:DeserializeOperation"], "can't be imported"),
        ],
    )
    def test_operation_that_can_not_be_imported_is_named(
        self, settings: Settings, setting: str, operations: Any, problem: str
    ) -> None:
        setattr(settings, setting, operations)
        (text,) = found()["E003"]
        assert text.startswith(setting)
        assert problem in text


class TestModels:
    """Models that settings name, and exclusive models."""

    @pytest.mark.parametrize("setting", ["SAVE_INDIVIDUALLY", "EXCLUSIVE_MODELS"])
    def test_labels_are_those_of_installed_models(self, settings: Settings, setting: str) -> None:
        settings.MORANGO_CELERY = {setting: ["school.Learner", "school.Teacher"]}
        (text,) = found()["E002"]
        assert text.startswith(f"MORANGO_CELERY[{setting!r}] names 'school.Teacher', which is not installed.")

    def test_model_that_is_exclusive_by_its_class_is_named_with_the_reason(self) -> None:
        messages = [message for message in checks.run_checks() if message.id == "morango_celery.I001"]
        assert [(message.level, message.msg) for message in messages] == [
            (
                checks.INFO,
                "neighbours.Branch is exclusive, for it is a MPTTModel: its save() asks for the highest "
                "tree_id, and makes room in other rows.",
            )
        ]

    def test_model_that_may_have_to_be_is_named_with_its_queries(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def named() -> list[str]:
            texts = [message.msg for message in checks.run_checks() if message.id == "morango_celery.I002"]
            return sorted(text.partition(",")[0] for text in texts if text.startswith("neighbours."))

        monkeypatch.setattr("morango_celery.checks.models.dialect", PostgreSQL)
        settings.MORANGO_CELERY = {"EXCLUSIVE_MODELS": ["neighbours.Ticket", "neighbours.Vote"]}
        assert named() == [
            "neighbours.Claim.save() has queries of its own (save() uses objects)",
            "neighbours.Entry.save() has queries of its own (_path() uses objects)",
            "neighbours.Heap.save() has queries of its own (save() uses objects)",
        ]
        # One writer writes one record after another
        monkeypatch.setattr("morango_celery.checks.models.dialect", SQLite)
        assert named() == []


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
        celery(broker_url="amqp://rabbit//", task_time_limit=3600, task_soft_time_limit=3500)
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

    def test_project_without_a_broker_is_told(self, celery: Configure) -> None:
        celery(broker_url=None)
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


def test_host_without_celery_is_checked_all_the_same() -> None:
    """Nothing has made a Celery application in that process."""
    script = (
        "import django; django.setup()\n"
        "from django.core.checks import run_checks\n"
        "found = run_checks(tags=['morango_celery'], include_deployment_checks=True)\n"
        "print(*sorted(message.id for message in found))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=ROOT,
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CELERY", "MORANGO"))
            },
            "DJANGO_SETTINGS_MODULE": "tests.unit.bare_settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [f"morango_celery.{name}" for name in ("W001", "W002", "W004", "W007")]


def test_documented_checks_are_those_that_there_are() -> None:
    package = ROOT / "morango_celery"
    modules = [*(package / "checks").glob("*.py"), *package.glob("*/checks.py")]
    code = "".join(path.read_text() for path in modules)
    documented = re.findall(
        r"^\| `([EW]\d+)`", (ROOT / "docs" / "reference" / "checks.md").read_text(), re.MULTILINE
    )

    assert documented == sorted(set(re.findall(r'id="morango_celery\.([EW]\d+)"', code)))


def test_deployments_celery_is_checked() -> None:
    assert current_app.main == deployed.main == "worker"
