"""docs/quickstart.md does to a Morango project what it says: its blocks are executed, one after the other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from tests.conftest import NEEDS_POSTGRESQL
from tests.processes import ROOT, LoggedProcess

pytestmark = getattr(pytest.mark, NEEDS_POSTGRESQL)

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {block.split()[1]: block for language, block in BLOCKS if language == "python"}
_INSTALL, PREPARE, WORKER, SEE = [block for language, block in BLOCKS if not language]

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
    "tests.variety",
]
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
""",
}
"""A project as it is before, with the models of `tests.variety`. It imports no `worker`: that brings a Celery
application, and would hide that the project has none."""

RECEIVE = """\
from morango.models import Store
from morango.sync.controller import MorangoProfileController
from tests.variety.models import Town

Town.objects.create(name="Exampleton")
MorangoProfileController("variety").serialize_into_store()
Town.objects.all()._raw_delete("default")
Store.objects.update(dirty_bit=True)
"""
"""Leaves a record as a sync does that was received and not deserialized."""

COUNT = "from tests.variety.models import Town; print('towns:', Town.objects.count())"


class Project:
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def do(self, commands: str) -> str:
        """What shell commands say, each of which has to succeed."""
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

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


@pytest.fixture
def project(transactional_db: None, redis_url: str, tmp_path: Path) -> Iterator[Project]:
    """A project that syncs, without this package, on a database of its own."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE quickstart")
    keys = ("ENGINE", "HOST", "PORT", "USER", "PASSWORD")
    database = {"NAME": "quickstart", **{key: connection.settings_dict[key] for key in keys}}
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "DATABASE": json.dumps(database),
        "REDIS_URL": redis_url,
    }
    try:
        project = Project(tmp_path, environment)
        project.write(PROJECT)
        project.do("python manage.py migrate --run-syncdb")
        yield project
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP DATABASE quickstart WITH (FORCE)")


def test_a_project_that_follows_the_page_deserializes_with_a_worker(project: Project) -> None:
    # Given what a sync brought before
    project.do(f"python manage.py shell --command '{RECEIVE}'")

    # When the page is followed
    project.write(FILES)
    assert "System check identified no issues (0 silenced)" in project.do(PREPARE)
    worker = LoggedProcess(
        ["bash", "-ec", f"cd {project.folder}; exec env {WORKER}"],
        project.folder / "worker.log",
        project.environment,
        as_in_container=True,
    )
    try:
        worker.wait_for_log(" ready.")
        seen = project.do(SEE.replace("facilitydata", "variety"))
    finally:
        worker.stop()

    # Then the worker has done it, and the page's last command says so
    assert "completed" in seen
    assert "morango_celery.deserialize_batch" in worker.log()
    assert "towns: 1" in project.do(f'python manage.py shell --command "{COUNT}"')
