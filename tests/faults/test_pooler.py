"""Behind a pooler that keeps only transactions together, nothing may rely on a session: it is anybody's.

PgBouncer has no wheel: where it isn't installed, what it does to us can't be seen, and this is skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from django.core.management import call_command
from django.db import connection
from morango.models import Store

from morango_celery import serialize_into_store
from morango_celery.comparison import Request, compare
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.inprocess import run_in_process
from tests.support.schools import MakeSchool
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker import services
from worker.school.models import PROFILE, Lesson

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

SESSIONS = 3
"""Sessions with the server, shared by all clients."""

CONFIGURATION = """\
[databases]
* = host={server.hostname} port={server.port} user={server.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
"""


@pytest.fixture
def pooled_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """Yield the test database through a pooler that gives each transaction another session if it can."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer isn't installed; Debian has a package of that name")
    server, port = urlsplit(database_url), services.free_port()
    url = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
    configuration = tmp_path / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(server=server, port=port, sessions=SESSIONS))
    command = [program, str(configuration)]
    if os.geteuid() == 0:  # which it refuses to be
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        command[1:1] = ["--user", "nobody"]
    with (tmp_path / "pgbouncer.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            until(lambda: answers(url), "the pooler ready")
            yield url
        finally:
            process.kill()


def answers(url: str) -> bool:
    with contextlib.suppress(psycopg2.OperationalError), closing(psycopg2.connect(url)):
        return True
    return False


def test_runs_complete_and_leave_sessions_as_they_were(
    make_school: MakeSchool, celery_worker_process: StartWorker, pooled_url: str
) -> None:
    # Given more worker processes than sessions, and runs whose starts come three times each
    schools = [make_school(100) for _ in range(3)]
    runs = [school.new_run() for school in schools]
    for _ in range(3):
        for run in runs:
            assert CeleryDispatch().start(run)

    # When they are carried out
    worker = celery_worker_process(
        SESSIONS + 1, DATABASE_URL=pooled_url, MORANGO_CELERY_BATCH_SIZE_RECORDS="10"
    )
    pks = [run.pk for run in runs]
    worker.wait_until(lambda: not Run.objects.filter(pk__in=pks, finalized=False).exists(), "done", 60)

    # Then nothing is lost
    for school, run in zip(schools, runs, strict=True):
        school.assert_intact(run)

    worker.stop()
    assert_sessions_are_as_they_were(pooled_url)


def assert_sessions_are_as_they_were(pooled_url: str) -> None:
    """Their next users find no lock, no cursor, no temporary table and no setting of others."""
    with ExitStack() as stack:
        seen = set()
        for _ in range(SESSIONS):
            cursor = stack.enter_context(closing(psycopg2.connect(pooled_url))).cursor()
            cursor.execute(
                "SELECT pg_backend_pid(), current_setting('transaction_isolation'),"
                " current_setting('synchronous_commit'), current_setting('statement_timeout'),"
                " current_setting('lock_timeout'), (SELECT count(*) FROM pg_cursors),"
                " (SELECT count(*) FROM pg_prepared_statements),"
                " (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            )
            ((pid, *found),) = cursor.fetchall()
            assert found == ["read committed", "on", "0", "0", 0, 0, 0, 0]
            seen.add(pid)
    assert len(seen) == SESSIONS


@pytest.fixture
def pooled(pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Lead this process through the pooler, as a project configures it that reads rows outside of
    transactions."""
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", str(urlsplit(pooled_url).port))
        patch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
        yield pooled_url
        connection.close()


def test_run_in_process_completes(make_school: MakeSchool, pooled: str) -> None:
    school = make_school(100)
    run = school.new_run()

    run_in_process(run)

    school.assert_intact(run)
    assert_sessions_are_as_they_were(pooled)


def test_serialization_comparison_and_commands_complete(make_school: MakeSchool, pooled: str) -> None:
    # Given records that were deserialized, and edited here
    run_in_process(make_school(100, mixed=False).new_run())
    edited = Lesson.objects.count()
    Lesson.objects.update(title="edited here")

    # When edits are serialized, records compared, and runs looked at
    serialize_into_store(PROFILE)
    report = compare(Request(PROFILE, replay=True))
    printed = StringIO()
    for command in ("deserialize_status", "recover_runs", "explain_models"):
        with contextlib.suppress(SystemExit):  # a status that tells of no worker
            call_command(command, stdout=printed)

    # Then all of it is as without a pooler
    assert Store.objects.filter(serialized__contains="edited here").count() == edited > 0
    assert (report.differences, report.records > 0) == (0, True)
    assert PROFILE in printed.getvalue()
    assert_sessions_are_as_they_were(pooled)
