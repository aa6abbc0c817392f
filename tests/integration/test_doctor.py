"""`manage.py doctor`: a line for each thing that a run needs, with the remedy for what is wrong."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import current_app
from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.recorder import MigrationRecorder

from morango_celery.health import database
from morango_celery.health.findings import Severity
from morango_celery.health.grants import lacks
from morango_celery.models import Run, Worker
from morango_celery.runs.workers import note_worker
from morango_celery.version import __version__
from tests.integration.mute import mute_server
from tests.support.run_helpers import ago, new_run
from worker import services

CHECKS = ["database", "migrations", "grants", "clock", "settings", "broker", "workers", "runs"]
Found = dict[str, tuple[str, str, str | None]]


@pytest.fixture
def diagnosed(transactional_db: None, redis_url: str, settings: Any) -> None:
    """Have workers used on both databases, and one of them alive."""
    settings.MORANGO_CELERY = {"IN_PROCESS": False}
    note_worker("celery@test")


def diagnosis(*options: str) -> tuple[int, str]:
    """Return the exit status and the output."""
    out, status = StringIO(), 0
    try:
        call_command("doctor", *options, stdout=out)
    except SystemExit as ended:
        status = int(str(ended.code))
    return status, out.getvalue()


def found(*options: str) -> tuple[int, Found]:
    """Return the exit status, and severity, text and remedy by check; the last ones of several."""
    status, text = diagnosis("--json", *options)
    report = json.loads(text)
    assert report["version"] == 1
    assert report["healthy"] is (status == 0)
    return status, {
        each["check"]: (each["severity"], each["text"], each["remedy"]) for each in report["findings"]
    }


@pytest.mark.usefixtures("diagnosed")
class TestDiagnosis:
    @pytest.mark.needs_postgresql
    def test_sound_project_has_a_line_for_each_check_and_no_error(self) -> None:
        status, text = diagnosis()

        lines = [line.split(maxsplit=2) for line in text.splitlines()]
        assert list(dict.fromkeys(check for _, check, _ in lines)) == CHECKS
        assert {severity for severity, _, _ in lines} <= {"ok", "WARNING"}
        assert status == 0
        (worker,) = (rest for _, check, rest in lines if check == "workers")
        assert worker.startswith(f"celery@test with morango_celery {__version__}, seen ")

    @pytest.mark.needs_postgresql
    def test_plan_of_the_look_at_grants_doesnt_matter(self) -> None:
        """The server may ask every relation for its privileges as a sequence, by other statistics."""
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE pg_class, pg_depend")
        assert found()[1]["grants"][0] == "ok"

    def test_broker_that_is_away_is_an_error_with_a_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        port = services.free_port()
        monkeypatch.setattr(current_app.conf, "broker_url", f"redis://:secret@127.0.0.1:{port}/0")

        status, text = diagnosis()

        (line,) = (line for line in text.splitlines() if " broker " in line)
        assert status == 1
        assert line.startswith("ERROR    broker")
        assert "doesn't answer" in line
        assert line.endswith("points at it.")
        assert "secret" not in text

    @pytest.mark.needs_postgresql
    def test_frozen_database_is_an_error_and_the_rest_is_looked_at(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with mute_server() as port:
            monkeypatch.setitem(connections.databases["default"], "PORT", str(port))

            status, findings = found("--timeout=3")

        assert status == 1
        assert findings["database"][:2] == ("error", "no answer within 3 s")
        assert findings["broker"][0] == "ok"
        assert findings["settings"][1] != "no answer within 3 s"
        assert not {"migrations", "grants", "clock", "workers", "runs"} & set(findings)

    def test_database_before_migrations_has_one_error_that_says_so(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        is_file = connection.vendor == "sqlite"
        empty = str(tmp_path / "empty.sqlite3") if is_file else "postgres"
        monkeypatch.setitem(connections.databases["default"], "NAME", empty)

        status, text = diagnosis()

        lines = [line.split(maxsplit=2) for line in text.splitlines()]
        (error,) = (rest for severity, look, rest in lines if severity == "ERROR" and look != "settings")
        assert status == 1
        assert error.startswith("the tables of morango_celery are not there yet; not applied: ")
        assert "Run `manage.py migrate` as the owner." in error
        assert not {"grants", "workers", "runs"} & {check for _, check, _ in lines}

    @pytest.mark.needs_postgresql
    def test_worker_of_another_version_is_a_warning(self) -> None:
        Worker.objects.update(version="0.0.1")

        status, findings = found()

        severity, text, remedy = findings["workers"]
        assert (status, severity) == (0, "warning")
        assert "celery@test with morango_celery 0.0.1" in text
        assert remedy is not None
        assert __version__ in remedy

    def test_lack_of_workers_is_an_error(self) -> None:
        Worker.objects.all().delete()

        status, findings = found()

        assert status == 1
        assert findings["workers"][:2] == ("error", "none has ever given a sign of life")
        assert "morango_celery.worker" in str(findings["workers"][2])

    def test_stalled_run_is_an_error(self) -> None:
        run = new_run()
        Run.objects.filter(pk=run.pk).update(last_activity_at=ago(1_000))

        status, findings = found()

        assert status == 1
        assert findings["runs"][:2] == ("error", f"stalled: {run.pk}")
        assert "recover_runs" in str(findings["runs"][2])

    def test_errors_of_system_checks_are_findings(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"BATCH_SIZE": 5}

        status, findings = found()

        severity, text, _ = findings["settings"]
        assert (status, severity) == (1, "error")
        assert text.startswith("E001: ")
        assert "BATCH_SIZE" in text


@pytest.mark.django_db
class TestLooksAtTheDatabase:
    def test_migration_that_is_not_applied_is_an_error(self) -> None:
        MigrationRecorder(connection).record_unapplied("morango_celery", "0001_initial")

        (finding,) = database.look_at_migrations()

        assert finding.severity is Severity.ERROR
        assert finding.text.endswith("not applied: morango_celery.0001_initial")
        assert "manage.py migrate" in finding.remedy

    def test_migration_of_another_app_prevents_no_look(self) -> None:
        MigrationRecorder(connection).record_unapplied("sessions", "0001_initial")

        (finding,) = database.look_at_migrations()

        assert (finding.text, finding.prevents) == ("not applied: sessions.0001_initial", ())

    @pytest.mark.needs_postgresql
    def test_remedy_for_lacking_grants_gives_them(self) -> None:
        run = Run._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute("CREATE ROLE limited")
            for schema in ("public", '"Filing Room"'):
                for kind in ("TABLES", "SEQUENCES"):
                    cursor.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA {schema} TO limited")
            cursor.execute(f"REVOKE DELETE, UPDATE ON {run} FROM limited")
            cursor.execute(f"REVOKE ALL ON SEQUENCE {run}_id_seq FROM limited")
            cursor.execute("SET LOCAL ROLE limited")
            (finding,) = database.look_at_grants()
            cursor.execute("RESET ROLE")

            assert finding.severity is Severity.ERROR
            assert finding.text == (
                f'the role \'limited\' lacks USAGE on schema "Filing Room"; UPDATE, DELETE on "{run}"; '
                f"USAGE on {run}_id_seq"
            )
            cursor.execute(finding.remedy.partition(": ")[2])
            cursor.execute("SET LOCAL ROLE limited")
            (finding,) = database.look_at_grants()
            cursor.execute("RESET ROLE")

        assert finding.severity is Severity.OK

    @pytest.mark.needs_postgresql
    def test_role_that_only_reads_is_told_apart_and_not_to_be_given_more(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE reader; GRANT SELECT ON {Run._meta.db_table} TO reader")
            cursor.execute("SET LOCAL ROLE reader")
            (finding,) = database.look_at_grants()
            cursor.execute("RESET ROLE")

        assert (finding.severity, finding.text) == (
            Severity.WARNING,
            "the role 'reader' only reads, which is enough for monitors",
        )
        assert "GRANT" not in finding.remedy

    @pytest.mark.needs_postgresql
    def test_missing_table_is_an_error_that_is_mended_by_migrating(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {Run._meta.db_table} RENAME TO elsewhere")

        assert lacks().tables == [f'"{Run._meta.db_table}"']
        (finding,) = database.look_at_grants()
        assert finding.severity is Severity.ERROR
        assert "manage.py migrate" in finding.remedy

    @pytest.mark.needs_postgresql
    @pytest.mark.parametrize(
        ("seconds", "severity", "text"),
        [
            (0.0, Severity.OK, "0.0 s "),
            (60.0, Severity.WARNING, "60.0 s behind this machine's"),
            (-60.0, Severity.WARNING, "60.0 s ahead of this machine's"),
        ],
    )
    def test_difference_of_clocks_is_a_warning(
        self, seconds: float, severity: Severity, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
            (theirs,) = cursor.fetchone()
        times = iter([theirs + seconds, theirs + seconds])
        monkeypatch.setattr(database, "time", SimpleNamespace(time=lambda: next(times)))

        (finding,) = database.look_at_clock()

        assert finding.severity is severity
        assert text in finding.text
