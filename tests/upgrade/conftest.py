"""A database of its own for each upgrade, and what pushes into it all the while."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest

from tests.support.processes import LoggedProcess
from tests.upgrade import newer, release
from tests.upgrade.project import Project, Version, present

if TYPE_CHECKING:  # models can't be imported yet
    from tests.upgrade.syncs import Syncs


@pytest.fixture(scope="session")
def released_version() -> Version:
    """Return the last released version, built from the repository's history."""
    found = release.released()
    try:
        installed = release.install(found)
    except release.MissingCommitError as error:
        pytest.fail(str(error), pytrace=False)
    return Version("released", str(installed.python), installed.project)


@pytest.fixture(scope="session")
def newer_version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Return a version of the future, with all that the present one doesn't know."""
    folder = newer.write(tmp_path_factory.mktemp("newer"))
    return Version("newer", present().python, folder)


@pytest.fixture
def database(django_db_modify_db_settings: None, django_db_blocker: object) -> Iterator[str]:
    """Create an empty database, and yield its URL. This process's connection leads there."""
    from django.db import connection

    settings = connection.settings_dict
    usual, name = settings["NAME"], f"upgrade_{uuid.uuid4().hex[:8]}"
    _execute(settings, f"CREATE DATABASE {name}")
    settings["NAME"] = name
    login = settings["USER"] + (f":{settings['PASSWORD']}" if settings["PASSWORD"] else "")
    try:
        with django_db_blocker.unblock():  # type: ignore[attr-defined]  # pytest-django's
            yield f"postgresql://{login}@{settings['HOST']}:{settings['PORT']}/{name}"
    finally:
        connection.close()
        settings["NAME"] = usual
        _execute(settings, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(settings: dict[str, str], statement: str) -> None:
    connection = psycopg2.connect(
        dbname="postgres",
        host=settings["HOST"],
        port=settings["PORT"],
        user=settings["USER"],
        password=settings["PASSWORD"],
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def project(database: str, redis_url: str, tmp_path: Path) -> Iterator[Project]:
    found = Project(database, redis_url, tmp_path)
    yield found
    found.end()


@pytest.fixture
def syncs(project: Project, tmp_path: Path) -> Iterator[Syncs]:
    """Yield the syncs of a project; its tables have to be there when they begin."""
    from tests.upgrade.syncs import Syncs

    started: list[LoggedProcess] = []
    yield Syncs(project, tmp_path, started)
    for process in started:
        process.stop()
