"""Worker with a database user that lacks a privilege, forgotten by its migrations or deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection
from morango.constants import transfer_statuses
from morango.models import Store, TransferSession

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Batch, Run
from morango_celery.runs.producer import create_run
from tests.support import factories
from tests.support.processes import ROOT
from tests.support.run_helpers import waiting_session
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Attempt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

DENIED = "permission denied for table school_attempt"


def ask(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def clerk(database_url: str) -> Iterator[dict[str, str]]:
    """Return the environment of processes that may do all but insert attempts."""
    ask(
        "CREATE ROLE clerk LOGIN",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO clerk",
        "REVOKE INSERT ON school_attempt FROM clerk",
    )
    parts = urlsplit(database_url)
    url = urlunsplit(parts._replace(netloc=f"clerk@{parts.hostname}:{parts.port}"))
    yield {"DATABASE_URL": url, "MORANGO_CELERY_BATCH_SIZE_RECORDS": "200"}
    ask("DROP OWNED BY clerk", "DROP ROLE clerk")


def test_permission_that_is_missing_ends_the_run_at_once_and_charges_no_record(
    celery_worker_process: StartWorker, clerk: dict[str, str]
) -> None:
    # Given a sync of 2,000 records, and a worker that may not insert most of them
    factories.fill_store(2000)
    session = waiting_session(transfer_statuses.STARTED)
    run = create_run(PROFILE, None, transfer_session_id=session.pk)
    worker = celery_worker_process(concurrency=2, **clerk)

    # When it is carried out
    CeleryDispatch().start(run)
    until(_has_failed, "told the session")

    # Then the run has failed and names the privilege and the remedy, and so has the session
    run = Run.objects.get()
    assert run.state == Run.State.FAILED
    assert DENIED in run.error
    assert "GRANT it SELECT, INSERT, UPDATE and DELETE on all tables" in run.error

    # ... no record is blamed, and no batch was tried again
    until(lambda: not _at_work(), "quiet")
    assert not Store.objects.exclude(deserialization_error=None).exists()
    assert not Attempt.objects.exists()
    left = Store.objects.filter(model_name="attempt", dirty_bit=True).count()
    assert left == Store.objects.filter(model_name="attempt").count()
    assert "Failed to deserialize" not in worker.log()
    assert not Batch.objects.filter(attempts__gt=1).exists()

    # ... and once it is mended, the same command that failed succeeds
    assert deserialize(clerk) == (1, DENIED)
    ask("GRANT INSERT ON school_attempt TO clerk")
    assert deserialize(clerk)[0] == 0
    assert Attempt.objects.count() == left


def _has_failed() -> bool:
    told: bool = TransferSession.objects.filter(transfer_stage_status=transfer_statuses.ERRORED).exists()
    return told


def _at_work() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'clerk' AND state <> 'idle'")
        return cursor.fetchone() is not None


def deserialize(environment: dict[str, str]) -> tuple[int, str]:
    """Return the command's exit status, and its last words about a permission."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", "deserialize", "--profile", PROFILE, "--wait"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, DENIED if DENIED in done.stderr else done.stderr
