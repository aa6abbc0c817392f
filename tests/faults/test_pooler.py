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
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from django.db import connection

from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.inprocess import run_in_process
from tests.support.schools import MakeSchool
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker import services

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

    # ... and the sessions' next users find no lock and no setting of others
    worker.stop()
    with ExitStack() as stack:
        seen = set()
        for _ in range(SESSIONS):
            cursor = stack.enter_context(closing(psycopg2.connect(pooled_url))).cursor()
            cursor.execute(
                "SELECT pg_backend_pid(), current_setting('transaction_isolation'),"
                " current_setting('synchronous_commit'), (SELECT count(*) FROM pg_cursors),"
                " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            )
            ((pid, *found),) = cursor.fetchall()
            assert found == ["read committed", "on", 0, 0]
            seen.add(pid)
    assert len(seen) == SESSIONS


def test_run_in_process_completes(
    make_school: MakeSchool, pooled_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = make_school(100)
    run = school.new_run()
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "PORT", str(urlsplit(pooled_url).port))
        run_in_process(run)
        connection.close()
    school.assert_intact(run)
