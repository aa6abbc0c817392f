"""Migrations let the version before go on."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState

from tests.neighbours.models import constraint
from tests.support.processes import ROOT
from tests.unit.migration_rules import flaws

RELEASED = ROOT / "tests" / "upgrade" / "released.toml"

USED = {"app_run": ("id", "state", "step")}


def test_every_migration_since_the_last_release_lets_that_release_go_on() -> None:
    loader, release = MigrationLoader(None, ignore_no_migrations=True), tomllib.loads(RELEASED.read_text())
    found: list[str] = []
    for app_label, name in sorted(loader.disk_migrations):
        if name > release["migrations"].get(app_label, "~"):
            migration = loader.disk_migrations[app_label, name]
            before = loader.project_state([(app_label, name)], at_end=False)
            found += flaws(migration, before, release["columns"])
    assert found == []


def test_released_migrations_make_the_tables_that_were_released() -> None:
    """A migration that was released stays as it is: a change of it would reach no database that has it."""
    loader, release = MigrationLoader(None, ignore_no_migrations=True), tomllib.loads(RELEASED.read_text())
    assert {label for label, _ in loader.disk_migrations if label.startswith("morango_celery")} == {
        *release["migrations"]
    }
    models = loader.project_state(list(release["migrations"].items())).apps.get_models()
    columns = {
        model._meta.db_table: sorted(
            str(field.column) for field in model._meta.get_fields() if field.concrete
        )
        for model in models
        if model._meta.app_label in release["migrations"] and not model._meta.proxy
    }
    assert columns == release["columns"]


def project() -> ProjectState:
    state = ProjectState()
    fields: list[tuple[str, Any]] = [
        ("id", models.BigAutoField(primary_key=True)),
        ("state", models.CharField(max_length=10, choices=[("a", "A")], default="a")),
        ("step", models.IntegerField()),
        ("gone", models.IntegerField(null=True)),
    ]
    state.add_model(ModelState("app", "Run", fields))
    return state


ADDED = {
    "nullable column": migrations.AddField("run", "note", models.TextField(null=True)),
    "reference without a constraint": migrations.AddField(
        "run", "other", models.ForeignKey("app.run", models.SET_NULL, null=True, db_constraint=False)
    ),
    "table": migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True))]),
    "index": migrations.AddIndex("run", models.Index(fields=["state"], name="by_state")),
    "one more choice": migrations.AlterField(
        "run", "state", models.CharField(max_length=10, choices=[("a", "A"), ("b", "B")], default="b")
    ),
    "column that may be NULL from now on": migrations.AlterField(
        "run", "step", models.IntegerField(null=True)
    ),
    "nullable column that is forgotten": migrations.SeparateDatabaseAndState(
        state_operations=[migrations.RemoveField("run", "gone")]
    ),
    "column that the release doesn't use": migrations.RunSQL("ALTER TABLE app_run DROP COLUMN old;"),
    "table that the release doesn't use": migrations.RunSQL(["DROP TABLE app_old"]),
}

BREAKING = {
    "column that has to be written": migrations.AddField("run", "note", models.TextField(default="")),
    "reference with a constraint": migrations.AddField(
        "run", "other", models.ForeignKey("app.run", models.SET_NULL, null=True)
    ),
    "table that refers by a constraint": migrations.CreateModel(
        "Note",
        [
            ("id", models.BigAutoField(primary_key=True)),
            ("run", models.ForeignKey("app.run", models.CASCADE)),
        ],
    ),
    "removed column": migrations.RemoveField("run", "step"),
    "renamed column": migrations.RenameField("run", "step", "number"),
    "shorter column": migrations.AlterField("run", "state", models.CharField(max_length=5, default="a")),
    "other type": migrations.AlterField("run", "step", models.TextField()),
    "column that must not be NULL any more": migrations.AlterField("run", "gone", models.IntegerField()),
    "deleted table": migrations.DeleteModel("run"),
    "renamed table": migrations.RenameModel("run", "work"),
    "constraint": migrations.AddConstraint("run", constraint("positive", models.Q(step__gte=0))),
    "column forgotten that has to be written": migrations.SeparateDatabaseAndState(
        state_operations=[migrations.RemoveField("run", "step")]
    ),
    "column dropped that the release uses": migrations.RunSQL('ALTER TABLE "app_run" DROP COLUMN "step"'),
    "table dropped that the release uses": migrations.RunSQL("DROP TABLE app_run"),
    "other SQL": migrations.RunSQL("UPDATE app_run SET step = 0"),
    "code": migrations.RunPython(migrations.RunPython.noop),
    "breaking operation inside another": migrations.SeparateDatabaseAndState(
        database_operations=[migrations.RemoveField("run", "step")]
    ),
}


def flaws_of(operation: Operation) -> list[str]:
    migration = migrations.Migration("0002_next", "app")
    migration.operations = [operation]
    return list(flaws(migration, project(), USED))


@pytest.mark.parametrize("name", ADDED)
def test_migration_that_adds_is_accepted(name: str) -> None:
    assert flaws_of(ADDED[name]) == []


@pytest.mark.parametrize("name", BREAKING)
def test_migration_that_breaks_the_version_before_is_refused(name: str) -> None:
    (flaw,) = flaws_of(BREAKING[name])
    assert flaw.startswith("app.0002_next: ")
