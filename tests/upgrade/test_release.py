"""The file that names the last release tells the truth."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.upgrade.project import Version
from tests.upgrade.release import released
from tests.upgrade.write_release import LIST_COLUMNS

pytestmark = pytest.mark.slow


def test_file_names_version_migrations_and_columns_of_its_commit(released_version: Version) -> None:
    command = [released_version.python, "-c", LIST_COLUMNS]
    done = subprocess.run(command, cwd=released_version.folder, check=True, capture_output=True, text=True)
    version, migrations, columns = json.loads(done.stdout)
    release = released()
    assert (release.version, release.migrations) == (version, migrations)
    assert {table: list(names) for table, names in release.columns.items()} == columns
