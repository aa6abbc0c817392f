"""Environment variables become settings; a faulty one is named."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from worker import environment


def parsed(monkeypatch: pytest.MonkeyPatch, url: str) -> dict[str, Any]:
    monkeypatch.setenv("DATABASE_URL", url)
    return environment.database()


def test_postgresql_url_becomes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    database = parsed(monkeypatch, "postgresql://ann:p%40ss%2Fword@db.example:5433/sync%20db?sslmode=require")

    assert database == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "sync db",
        "USER": "ann",
        "PASSWORD": "p@ss/word",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"connect_timeout": 10, "sslmode": "require"},
    }


def test_postgresql_url_may_name_a_socket_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    database = parsed(monkeypatch, "postgres://ann@%2Fvar%2Frun%2FPostgreSQL/sync")

    assert (database["HOST"], database["PORT"]) == ("/var/run/PostgreSQL", "")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////data/my%20sync.sqlite3", "/data/my sync.sqlite3"),
        ("sqlite:///sync.sqlite3", "sync.sqlite3"),
        ("sqlite://", ":memory:"),
    ],
)
def test_sqlite_url_becomes_settings(monkeypatch: pytest.MonkeyPatch, url: str, name: str) -> None:
    database = parsed(monkeypatch, url)

    assert (database["ENGINE"], database["NAME"]) == ("django.db.backends.sqlite3", name)
    assert database["OPTIONS"]["timeout"] >= 5


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "DATABASE_URL is not set.*postgresql://"),
        ("mysql://root:secret@host/db", "DATABASE_URL must look like.*'mysql'"),
        ("postgresql://ann:secret@host", "DATABASE_URL.*names no database"),
        ("postgresql://ann:secret@host:port/db", "DATABASE_URL is not a URL"),
        ("sqlite://data.sqlite3", "DATABASE_URL must look like"),
        ("just-a-name", "DATABASE_URL must look like"),
    ],
)
def test_wrong_database_url_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem) as caught:
        parsed(monkeypatch, url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), ("0", False), ("off", False), ("", True)]
)
def test_texts_are_read_as_flags(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("DEBUG", text)

    assert environment.flag("DEBUG", default=True) is value


def test_flag_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", "maybe")

    with pytest.raises(ImproperlyConfigured, match="DEBUG must be 1 or 0, not 'maybe'"):
        environment.flag("DEBUG")


@pytest.mark.parametrize("text", ["0", "-5", "many", "1.5", "²"])
def test_text_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROWS", text)

    with pytest.raises(ImproperlyConfigured, match="ROWS must be a whole number from 1"):
        environment.whole_number("ROWS", default=7)


def test_text_is_read_as_a_number_or_the_default_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROWS", raising=False)
    assert environment.whole_number("ROWS", default=7) == 7
    monkeypatch.setenv("ROWS", " 12 ")
    assert environment.whole_number("ROWS", default=7) == 12


@pytest.mark.parametrize(("text", "level"), [("", "INFO"), (" warning ", "WARNING"), ("ERROR", "ERROR")])
def test_level_of_the_log_is_read(monkeypatch: pytest.MonkeyPatch, text: str, level: str) -> None:
    monkeypatch.setenv("LOG_LEVEL", text)

    assert environment.log_level() == level


@pytest.mark.parametrize("text", ["loud", "10", "NOTSET"])
def test_level_that_is_none_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LOG_LEVEL", text)

    with pytest.raises(ImproperlyConfigured, match=r"LOG_LEVEL must be one of DEBUG, INFO, .*, not '"):
        environment.log_level()


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the deployment with only these of our variables."""
    ours = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "DJANGO_SETTINGS_MODULE")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env={**inherited, **variables}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"DATABASE_URL": "sqlite://"}, "SECRET_KEY is not set."),
        ({"DEBUG": "1"}, "DATABASE_URL is not set."),
        ({"DEBUG": "1", "DATABASE_URL": "sqlite://", "LOG_LEVEL": "loud"}, "LOG_LEVEL must be one of "),
    ],
)
def test_command_line_names_a_faulty_variable(variables: dict[str, str], fault: str) -> None:
    done = run("worker", "check", **variables)

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: The environment variable {fault}")
    assert "Traceback" not in done.stderr


def test_worker_without_a_broker_names_the_variable() -> None:
    done = run("celery", "-A", "worker", "worker", "--pool=solo", DEBUG="1", DATABASE_URL="sqlite://")

    assert done.returncode != 0
    assert "REDIS_URL is not set" in done.stderr


def test_settings_pass_djangos_checks() -> None:
    done = run("worker", "check", DEBUG="1", DATABASE_URL="sqlite://")

    assert (done.returncode, done.stderr) == (0, "")
