"""Pauses from a shell, in the admin, and as monitors see them."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from redis import Redis

from morango_celery.metrics.figures import figures
from morango_celery.models import Pause, Run
from morango_celery.runs import pausing
from morango_celery.runs.workers import note_worker
from tests.integration.admin_pages import RUNS, act, listed, shown, text_of
from tests.support.factories import SCHOOL_ID
from tests.support.operators import LOOK, logged_in
from tests.support.queues import lengths
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE

pytestmark = pytest.mark.django_db

PAUSES = "/admin/morango_celery/pause/"


def told(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue().strip()


def test_commands_pause_and_resume(transactional_db: None, redis_url: str) -> None:
    note_worker("celery@here")
    run = new_run()
    filtered = ("--profile", PROFILE, "--filter", SCHOOL_ID)

    said = told("pause_runs", *filtered, "--reason", "the disk is full")

    assert said == (
        f"Paused: school under {SCHOOL_ID}. 1 unfinished run waits; `manage.py resume_runs` ends it."
    )
    assert "paused: it waits for `manage.py resume_runs`" in told("deserialize_status", str(run.pk))
    listing = told("deserialize_status")
    assert f"Paused: school under {SCHOOL_ID} (the disk is full), since 20" in listing
    assert f"{run.pk}  paused" in listing
    (pause,) = json.loads(told("deserialize_status", "--json"))["pauses"]
    assert pause.pop("created_at").startswith("20")
    assert pause == {"profile": PROFILE, "filter": [SCHOOL_ID], "reason": "the disk is full"}
    assert json.loads(told("deserialize_status", str(run.pk), "--json"))["paused"] is True

    # What goes on is sent at once
    told("pause_runs", "--profile", PROFILE)
    assert told("resume_runs", *filtered).startswith("0 runs go on. Paused: school, since 20")
    with Redis.from_url(redis_url) as client:
        assert lengths(client) == {}
        assert told("resume_runs") == "1 run goes on. Nothing is paused."
        assert sum(lengths(client).values()) == 1


def test_commands_refuse_what_they_cannot_do() -> None:
    with pytest.raises(CommandError, match="A filter belongs to a profile"):
        told("pause_runs", "--filter", SCHOOL_ID)
    with pytest.raises(CommandError, match="Nothing to resume"):
        told("resume_runs")
    with pytest.raises(CommandError, match="200 printable characters"):
        told("pause_runs", "--reason", "x" * 201)
    assert not Pause.objects.exists()


def test_operator_pauses_and_resumes_in_the_admin(operator: Client, redis_url: str) -> None:
    run = new_run()
    form = {"profile": PROFILE, "filter": f"{SCHOOL_ID}\n", "reason": "<b>moving</b>"}
    operator.post(f"{PAUSES}add/", form)

    made = Pause.objects.get()
    assert (made.profile, made.filter, made.reason) == (PROFILE, SCHOOL_ID, "<b>moving</b>")
    banner = operator.get(RUNS).content.decode()
    assert f"Paused: school under {SCHOOL_ID} (&lt;b&gt;moving&lt;/b&gt;), since " in banner
    assert listed(operator, "stalled=paused") == {run.pk}
    assert "paused" in shown(operator, f"{RUNS}{run.pk}/change/")

    answer = operator.post(PAUSES, {"action": "resume", "_selected_action": [made.pk]}, follow=True)

    assert f"The pause of school under {SCHOOL_ID} has ended; 1 run goes on." in text_of(
        answer.content.decode()
    )
    assert not Pause.objects.exists()
    assert "Paused:" not in operator.get(RUNS).content.decode()
    assert listed(operator, "stalled=paused") == set()


def test_operator_is_told_that_a_new_run_waits(operator: Client, redis_url: str, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": False}
    ended = new_run(state=Run.State.COMPLETED)
    pausing.pause(reason="moving")

    text = act(operator, "retry_run", ended)

    assert re.search(r"retries run \d+\. It waits\. Paused: all runs \(moving\), since ", text)


def test_command_says_that_its_run_waits(redis_url: str, settings: Any) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": False}
    pausing.pause(PROFILE)

    said = told("deserialize", "--profile", PROFILE)

    assert said.startswith(
        f"Run {Run.objects.get().pk} is in the ledger, and waits. Paused: school, since 20"
    )


def test_pause_that_can_not_be_is_refused_in_its_form(operator: Client) -> None:
    for form, error in (
        ({"filter": SCHOOL_ID}, "A filter belongs to a profile"),
        ({"profile": PROFILE, "filter": "${facility}"}, "unfilled template"),
        ({"profile": "skool"}, "not one of the available choices"),
    ):
        assert error in operator.post(f"{PAUSES}add/", form).content.decode()
    assert not Pause.objects.exists()


def test_viewer_sees_pauses_and_neither_makes_nor_ends_any() -> None:
    guest = logged_in("guest", LOOK)
    made = pausing.pause(reason="moving")

    assert "moving" in shown(guest, PAUSES)
    assert guest.get(f"{PAUSES}add/").status_code == 403
    assert guest.post(f"{PAUSES}add/", {}).status_code == 403
    guest.post(PAUSES, {"action": "resume", "_selected_action": [made.pk]})
    assert Pause.objects.get() == made


def test_metrics_count_pauses_and_the_runs_that_they_hold() -> None:
    def found() -> dict[str, Any]:
        return {each.metric.name: each.value for each in figures() if "pause" in each.metric.name}

    new_run()
    new_run(state=Run.State.COMPLETED)
    assert found() == {"morango_celery_runs_paused": 0, "morango_celery_pauses": 0}

    pausing.pause()

    assert found() == {"morango_celery_runs_paused": 1, "morango_celery_pauses": 1}
