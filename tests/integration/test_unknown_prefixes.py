"""A misspelled ``--filter`` is told on the standard error output, and nothing else changes."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError
from morango.models import Certificate

from morango_celery.management import unknown_prefixes
from morango_celery.models import Pause, Run
from tests.support.factories import SCHOOL_ID, store_row
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

TYPO = "7d" * 16
COMMANDS = {
    "deserialize": ("--in-process",),
    "deserialize --dry-run": ("--dry-run",),
    "deserialize --json": ("--in-process", "--json"),
    "pause_runs": (),
}


def called(name: str, *arguments: str) -> tuple[str, str]:
    """Return both outputs of a command with a profile."""
    out, err = StringIO(), StringIO()
    call_command(name.split()[0], "--profile", PROFILE, *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def warned(err: str) -> bool:
    return "Warning: no record and no known facility" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_prefix_that_nothing_has_is_told_and_the_command_goes_on(command: str) -> None:
    store_row("unit")

    out, err = called(command, *COMMANDS[command], "--filter", TYPO, SCHOOL_ID)

    assert warned(err)
    (line,) = (line for line in err.splitlines() if warned(line))
    assert f" begins with {TYPO}. " in line
    assert SCHOOL_ID not in line
    assert "Warning" not in out
    if "--json" in command:
        assert json.loads(out)["filter"] == [TYPO, SCHOOL_ID]
    assert Run.objects.exists() or Pause.objects.exists() or "dry-run" in command


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("prefix", [SCHOOL_ID, SCHOOL_ID[:6], f"{SCHOOL_ID}:units"])
def test_prefix_of_a_record_is_known_whether_it_waits_or_not(command: str, prefix: str) -> None:
    store_row("unit", dirty=False)

    assert not warned(called(command, *COMMANDS[command], "--filter", prefix)[1])


def test_part_of_a_partition_that_none_begins_with_is_told() -> None:
    store_row("unit")

    assert warned(called("deserialize", "--dry-run", "--filter", f"{SCHOOL_ID}:unist")[1])


def test_facility_without_records_is_known_by_its_certificate() -> None:
    facility = Certificate.generate_root_certificate("school-full").id

    assert not warned(called("deserialize", "--dry-run", "--filter", facility)[1])
    assert warned(called("deserialize", "--dry-run", "--filter", f"{facility}:units")[1])


def test_comparison_warns_too() -> None:
    store_row("unit")

    assert warned(called("compare_with_morango", "--filter", TYPO)[1])


def test_whole_profile_of_an_empty_server_has_no_warning() -> None:
    assert called("deserialize", "--in-process")[1] == ""


def test_look_that_fails_is_left_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise DatabaseError

    monkeypatch.setattr(unknown_prefixes, "_is_known", fail)

    assert called("deserialize", "--dry-run", "--filter", TYPO)[1] == ""
