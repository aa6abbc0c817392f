"""The command ``compare_with_morango``: its output, its exit statuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from morango.models import Store

from morango_celery.comparison.estimate import SAMPLE_RECORDS
from morango_celery.db.dialect import dialect
from morango_celery.runs.inprocess import rehearse
from tests.support.dump import dump
from tests.support.factories import SCHOOL_ID, fill_store, store_row
from tests.support.processes import LoggedProcess
from tests.support.waiting import until
from worker.school.models import PROFILE, Unit

pytestmark = pytest.mark.django_db(transaction=True)


def compare(*arguments: str) -> tuple[int, str, str]:
    """Return the command's exit status and output, and what it says beside it."""
    out, error = StringIO(), StringIO()
    try:
        call_command("compare_with_morango", "--profile", PROFILE, *arguments, stdout=out, stderr=error)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), error.getvalue()
    except CommandError as failed:
        return int(vars(failed)["returncode"]), out.getvalue(), f"{error.getvalue()}{failed}"
    return 0, out.getvalue(), error.getvalue()


def test_same_results_are_status_0_with_a_table_of_models() -> None:
    fill_store(20)
    status, text, beside = compare()
    assert status == 0
    assert "No differences." in text
    [unit] = [line.split() for line in text.splitlines() if line.startswith("unit ")]
    count = int(unit[1])
    assert unit == ["unit", *map(str, [count, count, 0, 0, 0, count, 0, 0, 0])]
    assert "Comparing 20 records." in beside
    assert "sequences" in beside


def test_difference_is_status_1_and_names_no_value() -> None:
    unit = store_row("unit")

    def altered(*arguments: Any) -> Any:
        run = rehearse(*arguments)
        Unit.objects.filter(pk=unit.pk).update(name="secret", update_dirty_bit_to=False)
        return run

    with patch("morango_celery.comparison.sides.rehearse", altered):
        status, text, _ = compare()
        shown = compare("--show-values")[1]
        as_json = json.loads(compare("--json")[1])
    assert status == 1
    assert "1 row differs, and no documented deviation says why:" in text
    assert "school_unit" in text
    assert "secret" not in text + json.dumps(as_json)
    assert "'secret' with us" in shown
    assert (as_json["version"], as_json["differences"], as_json["examples"][0]["columns"]) == (1, 1, ["name"])


@pytest.mark.parametrize(
    "arguments", [["--records", "0"], ["--seconds", "-1"], ["--filter", " "], ["--database", "nowhere"]]
)
def test_nonsense_is_status_2(arguments: list[str]) -> None:
    if arguments[0] == "--database":
        assert compare(*arguments)[0] == 2
        return
    with pytest.raises(CommandError, match=arguments[0]):
        call_command("compare_with_morango", "--profile", PROFILE, *arguments)


def test_syncs_are_not_blocked_for_longer_than_allowed() -> None:
    fill_store(2 * SAMPLE_RECORDS)
    before = dump()
    status, text, beside = compare("--seconds", "0.5")
    assert (status, text) == (3, "")
    assert "longer than 0.5 s" in beside
    assert dump() == before


def test_filter_limits_the_records() -> None:
    store_row("unit")
    store_row("unit", school_id="ab" * 16)
    assert json.loads(compare("--filter", SCHOOL_ID, "--json")[1])["records"] == 1


def test_full_disk_for_temporary_files_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database = opened(*arguments, **options)
        database.execute("PRAGMA max_page_count = 4")
        return database

    opened = sqlite3.connect
    fill_store(50)
    before = dump()
    monkeypatch.setattr("morango_celery.comparison.results.sqlite3.connect", small)
    status, _, beside = compare()
    assert status == 3
    assert "database or disk is full. Make room there" in beside
    assert dump() == before


def test_full_disk_of_the_database_is_status_3() -> None:
    if not dialect().runs_in_process:
        pytest.skip("PostgreSQL's disk can't be limited for one database")
    fill_store(200)
    before = dump()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # or pages that were freed would do
        cursor.execute("PRAGMA page_count")
        pages = cursor.fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages}")
        try:
            status, _, beside = compare()
        finally:
            cursor.execute("PRAGMA max_page_count = 1073741823")
    assert (status, "database or disk is full" in beside) == (3, True), beside
    assert dump() == before


def test_another_database_is_compared_as_the_default_one(tmp_path: Path) -> None:
    if not dialect().runs_in_process:
        pytest.skip("a copy of PostgreSQL's test database would take as long as all tests here")
    store_row("unit")
    copy = tmp_path / "backup.sqlite3"
    with sqlite3.connect(copy) as backup:
        connection.ensure_connection()
        connection.connection.backup(backup)
    backup.close()
    Store.objects.all().delete()
    default = connections.databases["default"]
    with patch.dict(connections.databases, {"backup": {**default, "NAME": str(copy)}}):
        report = json.loads(compare("--database", "backup", "--json")[1])
    assert report["records"] == 1
    assert connections.databases["default"] is default
    assert not Store.objects.exists()


def is_comparing() -> bool:
    """Return True while another process has the locks of a comparison."""
    if dialect().has_advisory_locks:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            return bool(cursor.fetchone()[0])
    with suppress(OperationalError), connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 1")
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
        return False
    return True


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_comparison_leaves_nothing(
    sent: signal.Signals, status: int, tmp_path: Path, database_url: str
) -> None:
    fill_store(3000)
    before = dump()
    arguments = ["worker", "compare_with_morango", "--profile", PROFILE, "--seconds", "3000"]
    process = LoggedProcess(
        arguments, tmp_path / "log", {"PYTHONWARNINGS": "ignore", "DATABASE_URL": database_url}
    )
    try:
        process.wait_until(is_comparing, "comparing")
        os.kill(process.pid, sent)
        assert process.wait_until_ended() == status, process.log()
    finally:
        process.kill()
    if sent == signal.SIGINT:
        assert "Everything was rolled back." in process.log()
    until(lambda: not is_comparing(), "rolled back")
    assert dump() == before
