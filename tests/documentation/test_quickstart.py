"""Blocks of docs/start/quickstart.md, executed one after the other on a Morango project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.db import connection

from tests.support import roles
from tests.support.processes import ROOT, LoggedProcess
from tests.support.schemas import OTHER_SCHEMA

PAGE = (ROOT / "docs" / "start" / "quickstart.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {block.split()[1]: block for language, block in BLOCKS if language == "python"}
_INSTALL, PREPARE, WORKER, SEE = [
    block.replace("facilitydata", "model_zoo") for language, block in BLOCKS if not language
]

PROJECT = {
    "manage.py": """\
import os
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "myproject.settings")
execute_from_command_line()
""",
    "myproject/__init__.py": "",
    "myproject/settings.py": """\
import json, os
SECRET_KEY = "for-tests-only"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "mptt",
    "morango",
    "tests.model_zoo",
]
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
# One of these models has queries of its own, and two of a test app have code
SILENCED_SYSTEM_CHECKS = ["morango_celery.I002", "morango_celery.I003"]
""",
}
"""A project as it is before, with the models of `tests.model_zoo`. It imports no `worker`: that brings a
Celery application, and would hide that the project has none."""

RECEIVE = """\
from morango.models import Store
from morango.sync.controller import MorangoProfileController
from tests.model_zoo.models import Town

Town.objects.create(name="Exampleton")
MorangoProfileController("model_zoo").serialize_into_store()
Town.objects.all()._raw_delete("default")
Store.objects.update(dirty_bit=True)
"""
"""Leaves a record as a sync does that was received and not deserialized."""

OF_OTHER_SCHEMA = f"""
GRANT CREATE ON DATABASE {{}} TO {roles.MIGRATION};
GRANT USAGE ON SCHEMA "{OTHER_SCHEMA}" TO {roles.APPLICATION};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{OTHER_SCHEMA}" TO {roles.APPLICATION};
"""
"""The statements are about one schema, and `tests.model_zoo` has two."""

COUNT = """python manage.py shell --command \
"from tests.model_zoo.models import Town; print('towns:', Town.objects.count())"
"""
CHECKED = "System check identified no issues"


class Project:
    """A project that syncs, without this package, and has received a record that is still dirty."""

    def __init__(self, folder: Path, database: dict[str, str], **environment: str) -> None:
        self.database = database
        self.folder = folder
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{folder}:{ROOT}",
            "DATABASE": json.dumps(database),
            **environment,
        }
        self.write(PROJECT)
        self.do("python manage.py migrate --run-syncdb")
        self.do(f"python manage.py shell --command '{RECEIVE}'")

    def do(self, commands: str) -> str:
        """Run shell commands, each of which has to succeed, and return their output."""
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def log_in_as(self, role: str) -> None:
        """Let further processes connect to the database as this role."""
        self.environment["DATABASE"] = json.dumps({**self.database, "USER": role})

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


def grant(database: dict[str, str]) -> None:
    """Execute the deployment kit's statements in a database, as its superuser."""
    names = {"dbname": "NAME", "host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    login: dict[str, Any] = {name: database[key] for name, key in names.items()}
    with closing(psycopg2.connect(**login)) as session, session, session.cursor() as cursor:
        cursor.execute(roles.GRANTS + OF_OTHER_SCHEMA.format(database["NAME"]))


@pytest.fixture
def project(transactional_db: None, redis_url: str, tmp_path: Path) -> Iterator[Project]:
    """Yield a project on a database of its own, with the roles of the deployment kit."""
    name = f"{connection.settings_dict['NAME']}_quickstart"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    keys = ("ENGINE", "HOST", "PORT", "USER", "PASSWORD")
    database = {"NAME": name, **{key: connection.settings_dict[key] for key in keys}}
    try:
        project = Project(tmp_path, database, REDIS_URL=redis_url)
        grant(database)
        yield project
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            for role in roles.ROLES:
                cursor.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.mark.needs_postgresql
def test_project_that_follows_the_page_deserializes_with_a_worker(project: Project) -> None:
    project.write(FILES)
    project.log_in_as(roles.MIGRATION)
    assert CHECKED in project.do(PREPARE)
    project.log_in_as(roles.APPLICATION)
    worker = LoggedProcess(
        ["bash", "-ec", f"cd {project.folder}; exec env {WORKER}"],
        project.folder / "worker.log",
        project.environment,
        as_in_container=True,
    )
    try:
        worker.wait_for_log(" ready.")
        seen = project.do(SEE)
    finally:
        worker.stop()

    assert "completed" in seen
    assert "morango_celery.deserialize_batch" in worker.log()
    assert "towns: 1" in project.do(COUNT)
    grant(project.database)
    project.log_in_as(roles.MONITORING)
    assert re.search(r"^ +1  completed ", project.do("python manage.py deserialize_status"), re.MULTILINE)


@pytest.mark.slow
def test_blocks_work_on_sqlite_without_celery_settings(tmp_path: Path) -> None:
    project = Project(
        tmp_path, {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "school.sqlite3")}
    )

    settings = "myproject/settings.py"
    project.write({settings: re.sub(r"^CELERY_.*\n(?: .*\n)*}?", "", FILES[settings], flags=re.MULTILINE)})
    assert CHECKED in project.do(PREPARE)

    assert "completed" in project.do(SEE)
    assert "towns: 1" in project.do(COUNT)
