"""The Celery application and the HTTP server of the deployment, as real processes on the test database."""

from __future__ import annotations

import json
import os
import signal

import requests
from morango.models import Certificate

from tests.support.processes import PATIENCE_SECONDS
from tests.support.workers import StartServer, StartWorker
from worker.celery import app
from worker.school.models import PROFILE, Account


def test_worker_answers_over_the_tests_own_broker(celery_worker_process: StartWorker) -> None:
    celery_worker_process(concurrency=1)

    (answer,) = app.control.ping(timeout=PATIENCE_SECONDS, limit=1)

    assert list(answer.values()) == [{"ok": "pong"}]


def test_idle_worker_ends_on_sigterm(celery_worker_process: StartWorker) -> None:
    worker = celery_worker_process(concurrency=1)

    os.kill(worker.pid, signal.SIGTERM)

    worker.wait_until_ended()


def test_server_signs_a_certificate_for_a_superuser_only(live_http_server: StartServer) -> None:
    # Given a server with the school's root certificate, and two accounts
    root = Certificate.generate_root_certificate("school-full")
    for name, is_superuser in (("head", True), ("guest", False)):
        account = Account(username=name, is_superuser=is_superuser)
        account.set_password("a dummy password")
        account.save()
    url = live_http_server()

    # When a device asks for a certificate below it, with each account's password
    request = {
        "parent": root.id,
        "profile": PROFILE,
        "scope_definition": "school-full",
        "scope_version": 1,
        "scope_params": json.dumps({"school_id": root.id}),
        "public_key": root.public_key.get_public_key_string(),  # making another takes seconds
    }
    answers = {
        name: requests.post(
            f"{url}/api/morango/v1/certificates/",
            json=request,
            auth=(name, "a dummy password"),
            timeout=PATIENCE_SECONDS,
        ).status_code
        for name in ("head", "guest")
    }

    # Then only the superuser gets it
    assert answers == {"head": 201, "guest": 403}


def test_sync_endpoint_has_no_pages_for_browsers(live_http_server: StartServer) -> None:
    answer = requests.get(
        f"{live_http_server()}/api/morango/v1/morangoinfo/1/",
        headers={"Accept": "text/html,*/*;q=0.8"},
        timeout=PATIENCE_SECONDS,
    )

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
