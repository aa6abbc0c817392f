"""Settings: read live, with defaults, and refused with a sentence that names the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from pytest_django import Settings

from morango_celery.conf import batch_size_records, problems, require_valid
from morango_celery.conf import settings as ours
from morango_celery.db.postgresql import PostgreSQL
from morango_celery.db.sqlite import SQLite
from morango_celery.errors import InvalidSettingError
from tests.support.processes import ROOT

DEFAULTS = {
    "MODE": "await",
    "REQUEST_WAIT_SECONDS": 0.8,
    "BATCH_SIZE_RECORDS": None,
    "IN_PROCESS": None,
    "IN_PROCESS_CONCURRENCY": 2,
    "SAVE_INDIVIDUALLY": (),
    "EXCLUSIVE_MODELS": (),
    "SYNCHRONOUS_COMMIT": True,
    "STALLED_AFTER_SECONDS": 900,
    "MAX_ATTEMPTS": 3,
}


def test_without_the_dict_all_defaults_hold(settings: Settings) -> None:
    del settings.MORANGO_CELERY

    assert {name: getattr(ours, name) for name in DEFAULTS} == DEFAULTS
    assert problems() == []


def test_settings_are_read_live(settings: Settings) -> None:
    # Given one value that is configured
    settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 7}
    assert ours.BATCH_SIZE_RECORDS == 7

    # When it changes, then the new value is read, and the others keep their defaults
    settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 8, "SAVE_INDIVIDUALLY": ["school.Learner"]}
    assert ours.BATCH_SIZE_RECORDS == 8
    assert list(ours.SAVE_INDIVIDUALLY) == ["school.Learner"]
    assert ours.MODE == "await"


def test_batch_is_as_large_as_configured_or_as_the_database_needs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 7}
    assert batch_size_records() == 7

    settings.MORANGO_CELERY = {}
    for dialect, size in ((PostgreSQL, 2000), (SQLite, 5000)):
        monkeypatch.setattr("morango_celery.conf.dialect", dialect)
        assert batch_size_records() == size


def test_name_that_is_no_setting_has_no_value() -> None:
    with pytest.raises(AttributeError):
        _ = ours.BATCH_SIZE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODE", "await"),
        ("MODE", "detach"),
        ("MODE", "compare"),
        ("COMPARE_SHARE", 0),
        ("COMPARE_SHARE", 0.25),
        ("COMPARE_SHARE", 1),
        ("REQUEST_WAIT_SECONDS", 0),
        ("REQUEST_WAIT_SECONDS", 1.5),
        ("REQUEST_WAIT_SECONDS", 30),
        ("BATCH_SIZE_RECORDS", None),
        ("BATCH_SIZE_RECORDS", 1),
        ("BATCH_SIZE_RECORDS", 50_000),
        ("IN_PROCESS", None),
        ("IN_PROCESS", True),
        ("IN_PROCESS", False),
        ("SAVE_INDIVIDUALLY", []),
        ("SAVE_INDIVIDUALLY", ("school.Learner", "school.Unit")),
        ("SYNCHRONOUS_COMMIT", False),
        ("STALLED_AFTER_SECONDS", 1),
        ("MAX_ATTEMPTS", 1),
        ("MAX_ATTEMPTS", 100),
    ],
)
def test_sound_values_are_accepted(settings: Settings, key: str, value: Any) -> None:
    settings.MORANGO_CELERY = {key: value}

    assert problems() == []
    require_valid()


MODE = 'MORANGO_CELERY[\'MODE\'] must be "await", "detach" or "compare", not '
WAIT = "MORANGO_CELERY['REQUEST_WAIT_SECONDS'] must be a number of seconds from 0 to 30, not "
SHARE = "MORANGO_CELERY['COMPARE_SHARE'] must be a number from 0 to 1, not "
SIZE = "MORANGO_CELERY['BATCH_SIZE_RECORDS'] must be a whole number of records from 1 to 50000, or None, not "
IN_PROCESS = "MORANGO_CELERY['IN_PROCESS'] must be True, False or None, not "
LABELS = "MORANGO_CELERY['SAVE_INDIVIDUALLY'] must be a list of model labels such as \"school.Learner\", not "
COMMIT = "MORANGO_CELERY['SYNCHRONOUS_COMMIT'] must be True or False, not "
SECONDS = "MORANGO_CELERY['STALLED_AFTER_SECONDS'] must be a whole number of seconds above 0, not "
ATTEMPTS = "MORANGO_CELERY['MAX_ATTEMPTS'] must be a whole number of attempts from 1 to 100, not "


@pytest.mark.parametrize(
    ("configured", "problem"),
    [
        ({"MODE": "sideways"}, MODE + "'sideways'."),
        ({"MODE": None}, MODE + "None."),
        ({"MODE": ["await"]}, MODE + "['await']."),
        ({"COMPARE_SHARE": 1.5}, SHARE + "1.5."),
        ({"COMPARE_SHARE": True}, SHARE + "True."),
        ({"REQUEST_WAIT_SECONDS": -0.1}, WAIT + "-0.1."),
        ({"REQUEST_WAIT_SECONDS": 31}, WAIT + "31."),
        ({"REQUEST_WAIT_SECONDS": float("nan")}, WAIT + "nan."),
        ({"REQUEST_WAIT_SECONDS": True}, WAIT + "True."),
        ({"REQUEST_WAIT_SECONDS": None}, WAIT + "None."),
        ({"BATCH_SIZE_RECORDS": 0}, SIZE + "0."),
        ({"BATCH_SIZE_RECORDS": -5}, SIZE + "-5."),
        ({"BATCH_SIZE_RECORDS": 50_001}, SIZE + "50001."),
        ({"BATCH_SIZE_RECORDS": "1000"}, SIZE + "'1000'."),
        ({"BATCH_SIZE_RECORDS": 1.5}, SIZE + "1.5."),
        ({"BATCH_SIZE_RECORDS": True}, SIZE + "True."),
        ({"IN_PROCESS": "yes"}, IN_PROCESS + "'yes'."),
        ({"IN_PROCESS": 0}, IN_PROCESS + "0."),
        ({"SAVE_INDIVIDUALLY": "school.Learner"}, LABELS + "'school.Learner'."),
        ({"SAVE_INDIVIDUALLY": ["Learner"]}, LABELS + "['Learner']."),
        ({"SAVE_INDIVIDUALLY": ["worker.school.Learner"]}, LABELS + "['worker.school.Learner']."),
        ({"SAVE_INDIVIDUALLY": [None]}, LABELS + "[None]."),
        ({"SAVE_INDIVIDUALLY": {"school.Learner": True}}, LABELS + "{'school.Learner': True}."),
        ({"SAVE_INDIVIDUALLY": None}, LABELS + "None."),
        ({"SYNCHRONOUS_COMMIT": "off"}, COMMIT + "'off'."),
        ({"SYNCHRONOUS_COMMIT": 1}, COMMIT + "1."),
        ({"STALLED_AFTER_SECONDS": 0}, SECONDS + "0."),
        ({"STALLED_AFTER_SECONDS": "900"}, SECONDS + "'900'."),
        ({"MAX_ATTEMPTS": 0}, ATTEMPTS + "0."),
        ({"MAX_ATTEMPTS": 101}, ATTEMPTS + "101."),
        ({"MAX_ATTEMPTS": True}, ATTEMPTS + "True."),
        (
            {"BATCH_SIZE_RECORD": 10},
            "MORANGO_CELERY has an unknown key 'BATCH_SIZE_RECORD'. Did you mean 'BATCH_SIZE_RECORDS'?",
        ),
        (
            {"mode": "await"},
            "MORANGO_CELERY has an unknown key 'mode'. "
            "Known keys: MODE, COMPARE_SHARE, REQUEST_WAIT_SECONDS, BATCH_SIZE_RECORDS, BATCH_SIZE_BYTES, "
            "IN_PROCESS, IN_PROCESS_CONCURRENCY, SAVE_INDIVIDUALLY, EXCLUSIVE_MODELS, USE_EQUIVALENTS, "
            "SYNCHRONOUS_COMMIT, STALLED_AFTER_SECONDS, MAX_ATTEMPTS, SAME_ERROR_LIMIT_RECORDS, "
            "PRUNE_AFTER_DAYS.",
        ),
        ({7: 1}, "MORANGO_CELERY has an unknown key 7. Known keys: MODE"),
        (["MODE"], "MORANGO_CELERY must be a dict of settings, not list."),
        (None, "MORANGO_CELERY must be a dict of settings, not NoneType."),
    ],
)
def test_invalid_value_is_named_with_its_remedy(settings: Settings, configured: Any, problem: str) -> None:
    settings.MORANGO_CELERY = configured

    (found,) = problems()
    assert found.startswith(problem)
    with pytest.raises(InvalidSettingError) as refused:
        require_valid()
    assert str(refused.value) == found


def test_all_problems_are_named_at_once(settings: Settings) -> None:
    settings.MORANGO_CELERY = {
        "MODE": "sideways",
        "BATCHES": 3,
        "STALLED_AFTER_SECONDS": -1,
        "SAVE_INDIVIDUALLY": [],
    }

    assert [text.split(" ")[0] for text in problems()] == [
        "MORANGO_CELERY['MODE']",
        "MORANGO_CELERY",
        "MORANGO_CELERY['STALLED_AFTER_SECONDS']",
    ]
    with pytest.raises(InvalidSettingError) as refused:
        require_valid()
    assert all(problem in str(refused.value) for problem in problems())


@pytest.mark.parametrize("configured", [{"MODE": "sideways", "BATCHES": 3}, ["MODE"]])
def test_system_check_reports_each_problem(settings: Settings, configured: Any) -> None:
    settings.MORANGO_CELERY = configured

    found = [message for message in checks.run_checks(tags=["morango_celery"]) if message.level > checks.INFO]

    assert [message.msg for message in found] == problems()
    assert {(message.id, message.level) for message in found} == {("morango_celery.E001", checks.ERROR)}
    with pytest.raises(SystemCheckError, match=r"morango_celery\.E001"):
        call_command("check")


def test_system_check_is_content_with_the_deployments_settings() -> None:
    found = checks.run_checks(tags=["morango_celery"])

    assert not [message for message in found if message.level > checks.INFO]


def test_deployment_does_not_start_on_nonsense() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "check"],
        cwd=ROOT,
        env={**os.environ, "MORANGO_CELERY_MODE": "sideways"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert MODE + "'sideways'." in done.stderr
    assert "Traceback" not in done.stderr
