"""A project with no app of this package but ``morango_celery`` has the ledger's tables, and deserializes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT

ALONE = """
import json
import sys
import django
django.setup()
from django.core.management import call_command, get_commands
from django.db import connection
from morango.models import Store
call_command("migrate", verbosity=0)
from tests.support import factories
factories.fill_store(20)
call_command("deserialize", "--profile=school", "--in-process")
OURS = "morango_celery"
OTHERS = ("morango_celery.oplog", "morango_celery.payloads")
print(json.dumps({
    "tables": [name for name in connection.introspection.table_names() if name.startswith(OURS)],
    "modules": [name for name in sys.modules if name.startswith(OTHERS)],
    "commands": sorted(name for name, app in get_commands().items() if str(app).startswith(OURS)),
    "dirty": Store.objects.filter(dirty_bit=True).count(),
}))
"""


CORES_TABLES = [
    f"morango_celery_{name}" for name in ("batch", "comparison", "deletedcounts", "pause", "run", "worker")
]
CORES_COMMANDS = [
    *("cancel_run", "compare_with_morango", "create_sync_indexes", "deserialize", "deserialize_status"),
    *("doctor", "explain_models", "pause_runs", "prune_runs", "recover_runs", "resume_runs", "retry_run"),
]


def in_a_project(tmp_path: Path, *apps: str) -> dict[str, Any]:
    """Return the output of code in a project with these apps beside the deployment's."""
    (tmp_path / "project_settings.py").write_text(
        "from worker.settings import *\n"
        "from worker.settings import INSTALLED_APPS\n"
        f"INSTALLED_APPS = [*INSTALLED_APPS, *{apps!r}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_project_with_the_core_alone_has_only_the_ledgers_tables_and_deserializes(tmp_path: Path) -> None:
    assert in_a_project(tmp_path) == {
        "tables": CORES_TABLES,
        "modules": [],
        "commands": CORES_COMMANDS,
        "dirty": 0,
    }


@pytest.mark.parametrize(
    ("app", "tables", "commands"),
    [
        (
            "oplog",
            [
                *("deadletter", "deadletterobject", "ingestposition"),
                *("ingestsource", "outboxchange", "recorderfile"),
            ],
            {"ingest_objects", "prune_oplog", "record_objects"},
        ),
        ("payloads", ["payload"], {"prune_payloads"}),
    ],
)
def test_each_further_app_brings_its_own_tables_and_commands(
    tmp_path: Path, app: str, tables: list[str], commands: set[str]
) -> None:
    found = in_a_project(tmp_path, f"morango_celery.{app}")
    own = [f"morango_celery_{app}_{table}" for table in tables]
    assert found["tables"] == sorted([*own, *CORES_TABLES])
    assert found["commands"] == sorted([*CORES_COMMANDS, *commands])
