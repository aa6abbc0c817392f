"""A version of the future: the present package with what a next version may bring, in a folder of its own.

- Runs, batches and messages of a newer form, which the present version knows nothing of.
- A state of runs before ``pending``, and one of batches after ``open``.
- A migration that adds a column.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from morango_celery.version import FORM, __version__
from tests.support.processes import ROOT

VERSION = "99.0.0"
STATE_OF_RUNS = "noted"
STATE_OF_BATCHES = "written"
COLUMN = "note"
MIGRATION = "0999_newer"

_MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("morango_celery", "{last}")]
    operations = [
        migrations.AddField("run", "{column}", models.TextField(null=True)),
    ]
"""

CHANGES: Mapping[str, Sequence[tuple[str, str]]] = {
    "version.py": [(f'"{__version__}"', f'"{VERSION}"'), (f"\nFORM = {FORM}\n", f"\nFORM = {FORM + 1}\n")],
    "models/run_columns.py": [
        (
            '        RUNNING = "running"\n',
            f'        NOTED = "{STATE_OF_RUNS}"\n        RUNNING = "running"\n',
        ),
        (
            "    MOVES = {\n",
            "    MOVES = {\n        State.NOTED: {State.PENDING, State.FAILED, State.CANCELLED},\n",
        ),
        (
            "    UNFINISHED = (State.PENDING, State.RUNNING)\n",
            "    UNFINISHED = (State.NOTED, State.PENDING, State.RUNNING)\n",
        ),
        (
            "default=State.PENDING)\n",
            f'default=State.NOTED)\n    {COLUMN} = models.TextField(null=True, default="new")\n',
        ),
    ],
    "models/batch.py": [
        ('        DONE = "done"\n', f'        DONE = "done"\n        WRITTEN = "{STATE_OF_BATCHES}"\n'),
        ("        State.OPEN: {State.DONE, ", "        State.OPEN: {State.DONE, State.WRITTEN, "),
        ("    MOVES = {\n", "    MOVES = {\n        State.WRITTEN: set[State](),\n"),
    ],
    "runs/execution.py": [("batch.close(Batch.State.DONE, ", "batch.close(Batch.State.WRITTEN, ")],
    "runs/opening.py": [
        (
            "    beginning = _begin(run_id)\n",
            "    Run.objects.filter(pk=run_id, state=Run.State.NOTED).update(state=Run.State.PENDING)\n"
            "    beginning = _begin(run_id)\n",
        )
    ],
}
"""Texts of the present package, by module, and those in place of them."""


def write(folder: Path) -> Path:
    """Write the newer version, with the sample project beside it, and return the folder."""
    leave_out = shutil.ignore_patterns("__pycache__")
    for package in ("morango_celery", "worker"):
        shutil.copytree(ROOT / package, folder / package, ignore=leave_out)
    changed = folder / "morango_celery"
    for module, changes in CHANGES.items():
        text = (changed / module).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{module} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (changed / module).write_text(text)
    migrations = changed / "migrations"
    last = max(path.stem for path in migrations.glob("0*.py"))
    (migrations / f"{MIGRATION}.py").write_text(_MIGRATION.format(last=last, column=COLUMN))
    return folder
