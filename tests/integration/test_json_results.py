"""``--json`` of commands: one object on the standard output, and nothing else."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from django.core.management import call_command

from morango_celery.management.json_output import RunJson
from morango_celery.models import Run
from morango_celery.payloads import payload_store
from tests.support.factories import fill_store
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE


@pytest.fixture(autouse=True)
def _in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True


def written(*arguments: str) -> dict[str, Any]:
    """Return the one object that a command writes."""
    out = StringIO()
    call_command(*arguments, "--json", stdout=out)
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.django_db
def test_run_is_written_as_the_status_command_writes_it() -> None:
    fill_store(5)
    run = new_run()

    cancelled = written("cancel_run", str(run.pk))
    retried = written("retry_run", str(run.pk))

    assert (cancelled["run"], cancelled["state"]) == (run.pk, "cancelled")
    assert (retried["run"], retried["retry_of"]) == (Run.objects.latest("pk").pk, run.pk)
    assert set(cancelled) == set(retried) == set(get_type_hints(RunJson))


@pytest.mark.django_db
def test_dry_run_has_its_version() -> None:
    fill_store(5)

    found = written("deserialize", "--profile", PROFILE, "--dry-run")

    assert (found["version"], found["records"]) == (1, 5)


@pytest.mark.django_db
def test_recovery_counts_messages(redis_url: str) -> None:
    assert written("recover_runs") == {"version": 1, "sent": 0, "waiting": 0}


@pytest.mark.django_db
def test_pauses_and_runs_that_go_on_are_told(redis_url: str) -> None:
    run = new_run()

    paused = written("pause_runs", "--profile", PROFILE)
    resumed = written("resume_runs")

    assert (paused["version"], paused["waiting"]) == (1, 1)
    assert PROFILE in paused["scope"]
    assert resumed == {"version": 1, "runs": [run.pk], "pauses": 0}


@pytest.mark.django_db(transaction=True)
def test_indexes_are_named() -> None:
    created = written("create_sync_indexes")
    again = written("create_sync_indexes")
    removed = written("create_sync_indexes", "--remove")

    names = created.pop("created")
    assert names
    assert created == {"version": 1, "removed": [], "indexes": len(names)}
    assert again == {"version": 1, "created": [], "removed": [], "indexes": len(names)}
    assert removed == {"version": 1, "created": [], "removed": names, "indexes": len(names)}


@pytest.mark.django_db(transaction=True)
def test_lines_of_a_log_are_counted(tmp_path: Path, settings: Any) -> None:
    log = tmp_path / "changes.log"
    log.write_text("rubbish\n")
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "FILE": str(tmp_path / "own.log")}

    assert written("ingest_objects", str(log)) == {
        "version": 1,
        "lines": 1,
        "applied": 0,
        "dead_letters": 1,
        "dead_letters_applied": 0,
    }
    with pytest.raises(SystemExit) as ended:
        call_command("ingest_objects", "--retry-dead-letters", "--json", stdout=(out := StringIO()))
    assert (ended.value.code, json.loads(out.getvalue())) == (1, {"version": 1, "applied": 0, "left": 1})
    assert written("record_objects") == {"version": 1, "lines": 0, "file": str(tmp_path / "own.log")}
    assert written("prune_oplog", "--days=1") == {"version": 1, "letters": 0, "positions": 0}


@pytest.mark.django_db(transaction=True)
def test_payloads_are_counted() -> None:
    payload_store().put("over", 0)
    kept = payload_store().put("kept")

    assert written("prune_payloads") == {"version": 1, "payloads": 1, "size_bytes": 7}
    assert written("prune_payloads", f"--delete={kept.sha256}") == {"version": 1, "parts": 1}
