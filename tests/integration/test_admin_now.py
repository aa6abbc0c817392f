"""The admin's page of this moment, and what lists of runs tell of each."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import current_app
from django.contrib.staticfiles import finders
from django.test import Client
from morango.models import SyncSession, TransferSession

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run, Worker
from morango_celery.runs import pausing
from tests.integration.admin_pages import RUNS, new_run, page_of, shown
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.operators import LOOK, logged_in
from tests.support.run_helpers import ago
from tests.support.transfers import new_transfer
from tests.support.waiting import held_store
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db, pytest.mark.needs_postgresql]

NOW = f"{RUNS}now/"
DEVICE = "5e" * 16


@pytest.fixture
def silent_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the broker be a port that takes connections, and never says a word; the project has patience."""
    app = current_app._get_current_object()
    patient = {**(app.conf.broker_transport_options or {}), "socket_timeout": 3600}
    monkeypatch.setitem(app.conf, "broker_transport_options", patient)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        real = app.connection_for_read
        monkeypatch.setattr(app, "connection_for_read", lambda **options: real(url, **options))
        yield


def sync_of(name: Any, *, is_server: bool, push: bool) -> TransferSession:
    transfer = new_transfer(PROFILE, SCHOOL_ID, push=push)
    side = "client" if is_server else "server"
    columns = {f"{side}_instance_id": uuid.UUID(DEVICE), f"{side}_instance_json": json.dumps(name)}
    SyncSession.objects.filter(pk=transfer.sync_session_id).update(is_server=is_server, **columns)
    return transfer


def tiles(page: str) -> dict[str, str]:
    """Return the texts of the tiles by their headings."""
    found = re.findall(r"<dt>(.*?)</dt>(.*?)</div>", page, re.DOTALL)
    return {heading: " | ".join(re.findall(r"<dd[^>]*>(.*?)</dd>", lines)) for heading, lines in found}


def test_page_tells_what_waits_runs_and_has_failed(operator: Client, redis_url: str) -> None:
    # Given waiting records, a run of each kind, and a message
    records = sum(fill_store(30).values())
    store_row("unit", columns={"deserialization_error": "x", "deserialization_exception": "y.Z"})
    running = new_run(state=Run.State.RUNNING, records=100, saved=50, started_at=ago(100))
    pending = new_run(filter=SCHOOL_ID, created_at=ago(300))
    failed = new_run(state=Run.State.FAILED, error="No <b>paper</b>.", finished_at=ago(60))
    new_run(state=Run.State.FAILED, error="Too long ago.", finished_at=ago(90_000))
    assert CeleryDispatch().start(pending)

    page = operator.get(NOW).content.decode()

    found = tiles(page)
    assert found["Waiting"].startswith(f"{records} records | of 1 sync or run | the oldest for 5 min ")
    seconds = records / 0.5
    assert f"about {int(seconds // 60)} min " in found["Waiting"]
    assert " at 0 a second" in found["Waiting"] or " at 1 a second" in found["Waiting"]
    assert found["Running"] == "1 run"
    assert found["Queue"] == "1 message"
    assert found["Failed in 24 hours"] == "1 run | 1 record in error now"
    tables = re.findall(r"<caption>(.*?)</caption>(.*?)</table>", page, re.DOTALL)
    runs = {heading: re.findall(r">Run (\d+)<", rows) for heading, rows in tables}
    assert runs == {
        "Running": [str(running.pk)],
        "Waiting, the first to come": [str(pending.pk)],
        "Failed in 24 hours": [str(failed.pk)],
    }
    assert "No &lt;b&gt;paper&lt;/b&gt;." in page


def test_page_tells_that_no_run_takes_what_waits(operator: Client, redis_url: str) -> None:
    records = sum(fill_store(30).values())
    new_run(state=Run.State.COMPLETED, records=100, saved=100, started_at=ago(100), finished_at=ago(90))
    new_run(state=Run.State.FAILED, error="No.", finished_at=ago(60))

    found = tiles(operator.get(NOW).content.decode())

    assert found["Waiting"] == (
        f"{records} records | of 0 syncs or runs | No run is to take them: the next sync does, or a retry of "
        "one that failed."
    )


@pytest.mark.usefixtures("silent_broker")
def test_page_names_the_workers_that_live(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morango_celery.admin.now.BROKER_SECONDS", 0.1)
    Worker.objects.create(name="celery@gone", seen_at=ago(5000))
    assert tiles(operator.get(NOW).content.decode())["Workers"] == (
        "none | Nothing is begun until one is started."
    )

    Worker.objects.create(name="celery@<north>", seen_at=ago(70))

    found = tiles(operator.get(NOW).content.decode())["Workers"]
    assert re.fullmatch(r"1 worker \| celery@&lt;north&gt;, seen 1 min \d+ s ago", found)


@pytest.mark.usefixtures("silent_broker")
def test_page_does_without_a_broker_that_does_not_answer(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morango_celery.admin.now.BROKER_SECONDS", 0.1)
    new_run(state=Run.State.RUNNING)

    found = tiles(operator.get(NOW).content.decode())

    assert found["Queue"].startswith("Not known: The broker doesn&#x27;t answer: ")
    assert found["Running"] == "1 run"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("silent_broker")
def test_page_does_without_what_the_database_takes_too_long_for(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morango_celery.admin.now.BROKER_SECONDS", 0.1)
    monkeypatch.setattr("morango_celery.admin.now.QUERY_SECONDS", 0.1)
    monkeypatch.setattr("morango_celery.admin.run_list.COUNTING_SECONDS", 0.05)
    new_run(state=Run.State.RUNNING)
    with held_store():
        found = tiles(operator.get(NOW).content.decode())

    assert found["Waiting"].startswith("Not known: The database was given a few seconds")
    assert found["Running"] == "1 run"


@pytest.mark.usefixtures("silent_broker")
def test_page_of_a_project_without_workers_asks_no_broker(operator: Client, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}

    found = tiles(operator.get(NOW).content.decode())

    assert found["Queue"] == "none"
    assert found["Workers"].startswith("none is needed")
    assert found["Waiting"] == "0 records | of 0 syncs or runs"


@pytest.mark.usefixtures("silent_broker")
def test_page_shows_pauses_and_their_reasons(operator: Client, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    new_run()
    pausing.pause(reason="moving <i>all</i>")

    page = operator.get(NOW).content.decode()

    assert "Paused: all runs (moving &lt;i&gt;all&lt;/i&gt;), since " in page
    assert "1 of them paused" in tiles(page)["Waiting"]


@pytest.mark.usefixtures("silent_broker")
def test_page_is_shown_to_viewers_and_refreshes_itself_with_and_without_scripts(settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    guest, stranger = logged_in("guest", LOOK), logged_in("stranger", ("view_batch",))
    page = guest.get(NOW).content.decode()

    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page
    assert '<script src="/static/morango_celery/now.js" defer></script>' in page
    assert f'data-url="{NOW}" data-seconds="5"' in page
    assert "<button" not in page.partition('<div id="content-main">')[2]
    assert finders.find("morango_celery/now.js")
    assert stranger.get(NOW).status_code == 403
    assert Client().get(NOW).status_code == 302
    # The application's own page begins with it
    assert (
        f'<div id="morango-now" data-url="{NOW}" data-seconds="0">'
        in guest.get("/admin/morango_celery/").content.decode()
    )
    assert "morango-now" not in stranger.get("/admin/morango_celery/").content.decode()


def test_list_shows_facility_device_direction_and_session(operator: Client, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    syncs = [
        (
            sync_of({"device_name": "Library <1>", "hostname": "x"}, is_server=True, push=True),
            "pushed by Library <1>",
        ),
        (sync_of({"hostname": "laptop"}, is_server=False, push=False), "pulled from laptop"),
        (sync_of({"hostname": 7}, is_server=True, push=True), "pushed by 5e5e5e5e…"),
        (sync_of(["nonsense"], is_server=True, push=True), "pushed by 5e5e5e5e…"),
    ]
    prefixes = f"{SCHOOL_ID}:units\n{'cd' * 16}"
    for transfer, _ in syncs:
        run = new_run(filter=prefixes, transfer_session_id=transfer.pk)

    for page in (RUNS, NOW):
        found = shown(operator, page)
        assert found.count(f"{SCHOOL_ID[:8]}…:units and 1 more") == len(syncs)
        for transfer, text in syncs:
            assert f"{text} session {transfer.pk[:8]}…" in found, page
    assert f"{text} {DEVICE}" in shown(operator, page_of(run))


def test_run_whose_session_is_gone_shows_its_number(operator: Client) -> None:
    new_run(transfer_session_id="7f" * 16)
    new_run(created_at=ago(0), filter=None)

    text = shown(operator, RUNS)

    assert "session 7f7f7f7f…" in text
    assert "all school" in text


def test_times_have_seconds_and_durations_are_shown(operator: Client) -> None:
    run = new_run(state=Run.State.COMPLETED, started_at=ago(200), finished_at=ago(75))

    for page in (RUNS, page_of(run)):
        text = shown(operator, page)
        assert re.search(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\b", text), page
        assert "2 min 5 s" in text
