"""Celery without workers, and databases that lag behind: done here, or refused with the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.core import checks
from django.db import OperationalError, connection
from morango.models import Store
from pytest_django import Settings

import morango_celery
from morango_celery.errors import InvalidSettingError
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.producer import create_run
from tests.support import factories
from tests.support.waiting import held
from worker.celery import app
from worker.school.models import PROFILE, Unit

pytestmark = pytest.mark.django_db(transaction=True)

GENERATIONS = 150


@pytest.fixture
def eager() -> Iterator[None]:
    """Let this process's Celery execute tasks instead of sending them, and raise their errors."""
    before = app.conf.task_always_eager, app.conf.task_eager_propagates
    app.conf.task_always_eager = app.conf.task_eager_propagates = True
    yield
    app.conf.task_always_eager, app.conf.task_eager_propagates = before


def test_eager_celery_carries_any_number_of_stages_out_here(eager: None, settings: Settings) -> None:
    # Given a tree of which each generation is a stage
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": 1}
    parent: Any = None
    for _ in range(GENERATIONS):
        parent = factories.store_row("unit", parent_id=parent).id

    # When a run is asked for
    run = morango_celery.deserialize(PROFILE)

    # Then it is completed, in this process
    assert (run.state, run.in_process, run.saved) == (Run.State.COMPLETED, True, GENERATIONS)
    assert Unit.objects.count() == GENERATIONS
    assert not Store.objects.filter(dirty_bit=True).exists()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let this connection wait for no lock longer than a moment."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
        yield
        cursor.execute("RESET lock_timeout")


@pytest.mark.needs_postgresql
def test_lock_timeout_in_a_run_of_eager_celery_is_tried_again(eager: None, impatient: None) -> None:
    # Given a record that somebody holds until the first one who waits for it has given up
    row = factories.store_row("unit")
    ended: list[str] = []
    with ExitStack() as hold:
        hold.enter_context(held(row.id))

        def let_go(execute: Any, *arguments: Any) -> Any:
            try:
                return execute(*arguments)
            except OperationalError as error:
                ended.append(str(error).strip())
                hold.close()
                raise

        # When a run comes upon it
        with connection.execute_wrapper(let_go):
            run = morango_celery.deserialize(PROFILE)

    # Then it is completed all the same
    assert [text.partition("\n")[0] for text in ended] == ["canceling statement due to lock timeout"]
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 1, 0)


@pytest.mark.needs_postgresql
def test_lock_that_is_never_let_go_fails_a_run_of_eager_celery_with_that_reason(
    eager: None, impatient: None
) -> None:
    row = factories.store_row("unit")

    with held(row.id), pytest.raises(OperationalError, match="lock timeout"):
        morango_celery.deserialize(PROFILE)

    run = Run.objects.get()
    assert (run.state, run.saved) == (Run.State.FAILED, 0)
    assert "canceling statement due to lock timeout" in run.error
    assert "Retry in" not in run.error
    assert morango_celery.retry(run.pk).saved == 1


def test_eager_celery_sends_nothing_and_says_so(eager: None, caplog: pytest.LogCaptureFixture) -> None:
    # Given a run that is for workers
    factories.store_row("unit")
    run = create_run(PROFILE, None, serialize_first=False, session_notified=True)

    # When it is to be sent
    with caplog.at_level(logging.ERROR):
        assert not CeleryDispatch().start(run)

    # Then it waits, and the log says for whom
    run.refresh_from_db()
    assert (run.state, run.sent_at) == (Run.State.PENDING, None)
    assert "task_always_eager is set: nothing is sent" in caplog.text


class Reads:
    """A router that reads models of one app from a replica."""

    app = "school"

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "replica" if model._meta.app_label == self.app else None


class ReadsStore(Reads):
    app = "morango"


class ReadsRuns(Reads):
    app = "morango_celery"


class ReadsSessions(Reads):
    app = "sessions"


def refused() -> list[Any]:
    found = checks.run_checks(tags=["morango_celery"])
    return [message for message in found if message.id == "morango_celery.E010"]


@pytest.mark.parametrize(("reads", "label"), [(Reads, "school.Unit"), (ReadsStore, "morango.Store")])
def test_model_of_a_sync_that_is_read_from_a_replica_is_refused(
    settings: Settings, reads: type[Reads], label: str
) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.{reads.__name__}"]
    text = f"DATABASE_ROUTERS have {label} written to 'default' and read from 'replica'"

    assert any(message.msg.startswith(text) for message in refused())
    with pytest.raises(InvalidSettingError, match="aren't found there"):
        morango_celery.deserialize(PROFILE, in_process=True)


def test_ledger_that_is_read_from_a_replica_is_refused(settings: Settings) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsRuns"]
    assert any("morango_celery.Run written" in message.msg for message in refused())


def test_models_of_other_apps_may_be_read_from_replicas(settings: Settings) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.ReadsSessions"]
    factories.store_row("unit")
    assert refused() == []
    assert morango_celery.deserialize(PROFILE, in_process=True).saved == 1
