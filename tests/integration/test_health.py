"""The page for monitors: it says what fails, never hangs, and tells nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import current_app
from django.db import connections
from django.test import Client

from morango_celery.health import examination, looks
from morango_celery.health.looks import SharedLook
from morango_celery.messaging.broker import reach_broker
from morango_celery.models import Run
from morango_celery.runs.workers import note_worker
from tests.integration.mute import mute_server
from tests.support.processes import PATIENCE_SECONDS
from tests.support.run_helpers import ago, new_run
from worker import services

WELL = {"ledger": "ok", "broker": "ok", "worker": "ok", "stalled": "ok"}


@pytest.fixture(autouse=True)
def looks_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test looks without answers of tests before it."""
    for name in ("ledger", "broker"):
        shared: SharedLook[Any] = getattr(examination, name)
        monkeypatch.setattr(examination, name, SharedLook(shared._look, PATIENCE_SECONDS))


@pytest.fixture
def broker_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    def change(port: int) -> None:
        monkeypatch.setattr(current_app.conf, "broker_url", f"redis://:a-password@127.0.0.1:{port}/0")

    return change


@pytest.fixture
def monitored(transactional_db: None, redis_url: str, settings: Any) -> None:
    """Have workers used on both databases, and one of them alive."""
    settings.MORANGO_CELERY = {"IN_PROCESS": False}
    note_worker("celery@test")


def checks(status: int) -> dict[str, str]:
    answer = Client().get("/healthz")
    assert answer.status_code == status
    assert answer["Cache-Control"].startswith("max-age=0")
    found = answer.json()
    assert set(found) == {"healthy", "checks"}
    assert found["healthy"] is (status == 200)
    states: dict[str, str] = found["checks"]
    return states


@pytest.mark.usefixtures("monitored")
class TestPage:
    def test_page_is_healthy_where_all_is_well_and_tells_nothing_more(self) -> None:
        assert checks(200) == WELL

    def test_page_fails_without_a_living_worker(self) -> None:
        from morango_celery.models import Worker

        Worker.objects.update(seen_at=ago(1_000))

        assert checks(503) == {**WELL, "worker": "failing"}

    def test_page_fails_where_a_run_is_stalled(self) -> None:
        run = new_run()
        Run.objects.filter(pk=run.pk).update(last_activity_at=ago(1_000))

        assert checks(503) == {**WELL, "stalled": "failing"}

    def test_page_fails_without_a_broker(self, broker_at: Any) -> None:
        broker_at(services.free_port())

        assert checks(503) == {**WELL, "broker": "failing"}

    def test_page_does_not_wait_for_a_frozen_broker(
        self, broker_at: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(examination.broker, "_patience_seconds", 0.2)
        with mute_server() as port:
            broker_at(port)

            assert checks(503) == {**WELL, "broker": "failing"}

    @pytest.mark.needs_postgresql
    def test_page_does_not_wait_for_a_frozen_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(examination.ledger, "_patience_seconds", 0.2)
        with mute_server() as port:
            monkeypatch.setitem(connections.databases["default"], "PORT", str(port))

            assert checks(503) == {
                "ledger": "failing",
                "broker": "ok",
                "worker": "unknown",
                "stalled": "unknown",
            }

    def test_project_without_workers_needs_no_broker(self, settings: Any, broker_at: Any) -> None:
        settings.MORANGO_CELERY = {"IN_PROCESS": True}
        broker_at(services.free_port())

        assert checks(200) == {**WELL, "broker": "unused", "worker": "unused"}

    def test_page_is_read_only(self) -> None:
        assert Client().post("/healthz").status_code == 405
        assert Client().head("/healthz").status_code == 200


def test_address_of_the_broker_hides_its_password(broker_at: Any) -> None:
    broker_at(services.free_port())

    with pytest.raises(Exception, match=r"redis://:\*\*@127\.0\.0\.1:\d+/0 doesn't answer") as raised:
        reach_broker(1.0)

    assert "a-password" not in str(raised.value)


class TestSharedLook:
    @pytest.fixture
    def release(self) -> Iterator[threading.Event]:
        event = threading.Event()
        yield event
        event.set()

    def look(self, release: threading.Event, patience_seconds: float) -> tuple[SharedLook[int], list[int]]:
        began: list[int] = []

        def look() -> int:
            began.append(len(began) + 1)
            assert release.wait(PATIENCE_SECONDS)
            return began[-1]

        return SharedLook(look, patience_seconds), began

    def test_requests_at_the_same_time_share_a_look(self, release: threading.Event) -> None:
        look, began = self.look(release, PATIENCE_SECONDS)
        for _ in range(3):
            look.begin()
        release.set()

        assert [look.answer() for _ in range(3)] == [1, 1, 1]
        look.begin()
        assert (look.answer(), began) == (1, [1])

    def test_old_answer_is_not_given_again(
        self, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(looks, "FRESH_SECONDS", -1.0)
        release.set()
        look, _ = self.look(release, PATIENCE_SECONDS)
        answers = []
        for _ in range(2):
            look.begin()
            answers.append(look.answer())

        assert answers == [1, 2]

    def test_look_that_hangs_holds_up_nobody_for_longer_than_its_patience(
        self, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a look that was begun as long ago as anybody waits for it
        clock = [0.0]
        monkeypatch.setattr(looks, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        look, began = self.look(release, PATIENCE_SECONDS)
        look.begin()
        clock[0] = PATIENCE_SECONDS - 0.01

        # When more requests come, then they wait no longer, and no look more is begun
        before = time.monotonic()
        for _ in range(3):
            look.begin()
            with pytest.raises(TimeoutError):
                look.answer()

        assert time.monotonic() - before < PATIENCE_SECONDS / 2
        assert began == [1]

    def test_look_that_hangs_is_given_up_in_the_end(
        self, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look, began = self.look(release, PATIENCE_SECONDS)
        look.begin()
        monkeypatch.setattr(looks, "ABANDONED_AFTER_SECONDS", -1.0)
        look.begin()
        release.set()

        assert look.answer() == 2
        assert began == [1, 2]
