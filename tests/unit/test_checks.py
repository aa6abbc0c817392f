"""System checks: Morango's operations, models, and hosts without Celery."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.core import checks
from morango.constants import settings as morango_defaults
from pytest_django import Settings

from morango_celery.checks import operations
from morango_celery.db.postgresql import PostgreSQL
from morango_celery.db.sqlite import SQLite
from morango_celery.operations import DeserializeOperation
from tests.support.processes import ROOT
from tests.unit.checks import found

OURS = "morango_celery.operations:DeserializeOperation"

STREAMING = "morango_celery.operations:StreamingSerializeOperation"

THEIRS = morango_defaults.MORANGO_DESERIALIZE_OPERATIONS

PRODUCER, RECEIVER = THEIRS[:2]


class Derived(DeserializeOperation):
    """A host project's subclass of our operation."""


class TestOperations:
    """Operations of Morango's middleware."""

    def test_our_operation_before_morangos_passes(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = [PRODUCER, f"{__name__}:Derived", *THEIRS]
        assert found() == {}

    def test_project_that_forgot_ours_is_told(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = THEIRS
        (text,) = found()["W001"]
        assert text.startswith(f"MORANGO_DESERIALIZE_OPERATIONS has no {OURS!r}")
        assert f"Put {OURS!r} first" in text

    def test_another_operation_may_ask_ours(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = THEIRS
        monkeypatch.setattr(operations, "ASKED_BY", {PRODUCER})
        assert "W001" not in found()
        monkeypatch.setattr(operations, "ASKED_BY", {"some.others:Operation"})
        assert "W001" in found()

    @pytest.mark.parametrize(
        ("setting", "operations", "ours"),
        [
            ("MORANGO_DESERIALIZE_OPERATIONS", [*THEIRS, OURS], OURS),
            ("MORANGO_DESERIALIZE_OPERATIONS", [PRODUCER, RECEIVER, OURS], OURS),
            (
                "MORANGO_SERIALIZE_OPERATIONS",
                [*morango_defaults.MORANGO_SERIALIZE_OPERATIONS, STREAMING],
                STREAMING,
            ),
        ],
    )
    def test_operation_after_one_that_takes_the_stage_is_an_error(
        self, settings: Settings, setting: str, operations: list[str], ours: str
    ) -> None:
        setattr(settings, setting, operations)
        (text,) = found()["E004"]
        assert text.startswith(f"{setting} has {ours!r} after 'morango.sync.operations:")
        assert f"Put {ours!r} first" in text

    def test_serializing_may_be_left_to_morango(self, settings: Settings) -> None:
        settings.MORANGO_SERIALIZE_OPERATIONS = morango_defaults.MORANGO_SERIALIZE_OPERATIONS
        assert found() == {}

    def test_receivers_need_morangos_own_where_it_has_the_stage(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = [OURS, PRODUCER]
        settings.MORANGO_CELERY = {"MODE": "compare", "IN_PROCESS": None}
        (text,) = found()["E011"]
        assert RECEIVER in text

        settings.MORANGO_DESERIALIZE_OPERATIONS = [OURS, *THEIRS]
        assert "E011" not in found()

    def test_producers_need_morangos_own(self, settings: Settings) -> None:
        settings.MORANGO_DESERIALIZE_OPERATIONS = [OURS]
        (text,) = found()["E005"]
        assert PRODUCER in text

    @pytest.mark.parametrize("setting", ["MORANGO_DESERIALIZE_OPERATIONS", "MORANGO_SERIALIZE_OPERATIONS"])
    @pytest.mark.parametrize(
        ("operations", "problem"),
        [
            (OURS, "must be a list of texts"),
            ([OURS, None], "must be a list of texts"),
            (["morango_celery.operations.DeserializeOperation"], "can't be imported"),
            (["morango_celery.operations:Deserialize"], "can't be imported"),
            (["morango_celery.operation:DeserializeOperation"], "can't be imported"),
        ],
    )
    def test_operation_that_can_not_be_imported_is_named(
        self, settings: Settings, setting: str, operations: Any, problem: str
    ) -> None:
        setattr(settings, setting, operations)
        (text,) = found()["E003"]
        assert text.startswith(setting)
        assert problem in text


class TestModels:
    """Models that settings name, and exclusive models."""

    @pytest.mark.parametrize("setting", ["SAVE_INDIVIDUALLY", "EXCLUSIVE_MODELS"])
    def test_labels_are_those_of_installed_models(self, settings: Settings, setting: str) -> None:
        settings.MORANGO_CELERY = {setting: ["school.Learner", "school.Teacher"]}
        (text,) = found()["E002"]
        assert text.startswith(f"MORANGO_CELERY[{setting!r}] names 'school.Teacher', which is not installed.")

    def test_model_that_is_exclusive_by_its_class_is_named_with_the_reason(self) -> None:
        messages = [message for message in checks.run_checks() if message.id == "morango_celery.I001"]
        assert [(message.level, message.msg) for message in messages] == [
            (
                checks.INFO,
                "neighbours.Branch is exclusive, for it is a MPTTModel: its save() asks for the highest "
                "tree_id, and makes room in other rows.",
            )
        ]

    def test_model_that_may_have_to_be_is_named_with_its_queries(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def named() -> list[str]:
            texts = [message.msg for message in checks.run_checks() if message.id == "morango_celery.I002"]
            return sorted(text.partition(",")[0] for text in texts if text.startswith("neighbours."))

        monkeypatch.setattr("morango_celery.checks.models.dialect", PostgreSQL)
        settings.MORANGO_CELERY = {"EXCLUSIVE_MODELS": ["neighbours.Ticket", "neighbours.Vote"]}
        assert named() == [
            "neighbours.Claim.save() has queries of its own (save() uses objects)",
            "neighbours.Entry.save() has queries of its own (_path() uses objects)",
            "neighbours.Heap.save() has queries of its own (save() uses objects)",
        ]
        # One writer writes one record after another
        monkeypatch.setattr("morango_celery.checks.models.dialect", SQLite)
        assert named() == []


def test_host_without_celery_is_checked_all_the_same() -> None:
    """Nothing has made a Celery application in that process."""
    script = (
        "import django; django.setup()\n"
        "from django.core.checks import run_checks\n"
        "found = run_checks(tags=['morango_celery'], include_deployment_checks=True)\n"
        "print(*sorted(message.id for message in found))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=ROOT,
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CELERY", "MORANGO"))
            },
            "DJANGO_SETTINGS_MODULE": "tests.unit.bare_settings",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.split() == [f"morango_celery.{name}" for name in ("W001", "W002", "W004", "W007")]


def test_documented_checks_are_those_that_there_are() -> None:
    package = ROOT / "morango_celery"
    modules = [*(package / "checks").glob("*.py"), *package.glob("*/checks.py")]
    code = "".join(path.read_text() for path in modules)
    documented = re.findall(
        r"^\| `([EW]\d+)`", (ROOT / "docs" / "reference" / "checks.md").read_text(), re.MULTILINE
    )

    assert documented == sorted(set(re.findall(r'id="morango_celery\.([EW]\d+)"', code)))
