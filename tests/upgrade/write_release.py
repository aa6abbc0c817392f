"""Writing of ``released.toml``, once a release's commit is on the main branch."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.processes import ROOT
from tests.upgrade.release import FILE

LIST_COLUMNS = """
import json, os
os.environ |= {"SECRET_KEY": "none", "DATABASE_URL": "sqlite://", "DJANGO_SETTINGS_MODULE": "worker.settings"}
import django
from django.conf import settings
from worker import settings as project
project.INSTALLED_APPS += ["morango_celery.oplog", "morango_celery.payloads"]
django.setup()
from django.apps import apps
from django.db.migrations.loader import MigrationLoader
from morango_celery.version import __version__
models = [model for model in apps.get_models() if model.__module__.startswith("morango_celery.")]
columns = {
    model._meta.db_table: sorted(field.column for field in model._meta.get_fields() if field.concrete)
    for model in models if model._meta.managed and not model._meta.proxy
}
leaves = MigrationLoader(None).graph.leaf_nodes()
migrations = {label: name for label, name in leaves if label.startswith("morango_celery")}
print(json.dumps([__version__, migrations, dict(sorted(columns.items()))]))
"""
"""Program that writes a version, its last migrations, and its columns by table, as JSON."""


def main() -> None:
    """Write the file for a commit, the one that is checked out."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    done = subprocess.run(
        [sys.executable, "-c", LIST_COLUMNS], cwd=ROOT, check=True, capture_output=True, text=True
    )
    version, migrations, columns = json.loads(done.stdout)
    lines = [f'version = "{version}"', f'commit = "{commit}"']
    lines += ["", "[migrations]", *(f'{label} = "{name}"' for label, name in migrations.items())]
    lines += ["", "[columns]"]
    for table, names in columns.items():
        lines += [f"{table} = [", *(f'    "{name}",' for name in names), "]"]
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
