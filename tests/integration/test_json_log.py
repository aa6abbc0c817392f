"""A worker's log in JSON, as docs/how-to/log.md configures it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import morango_celery
from tests.support import factories
from tests.support.processes import ROOT
from tests.support.run_helpers import MISSING, unit
from tests.support.workers import StartWorker
from worker.school.models import PROFILE

PAGE = (ROOT / "docs" / "how-to" / "log.md").read_text(encoding="utf-8")
CONFIGURATION, LEFT_TO_DJANGO, *_ = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.django_db(transaction=True)
def test_workers_lines_are_json_with_the_run_batch_attempt_and_model_as_keys(
    celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a worker of a project that has the page's examples
    settings = f"from worker.settings import *\n{CONFIGURATION}\n{LEFT_TO_DJANGO}"
    (tmp_path / "json_settings.py").write_text(settings, encoding="utf-8")
    worker = celery_worker_process(1, DJANGO_SETTINGS_MODULE="json_settings", PYTHONPATH=str(tmp_path))

    # When it deserializes a sound record and one that is none
    unit()
    factories.store_row("lesson", unit_id=MISSING)
    run = morango_celery.deserialize(PROFILE, wait=60)
    worker.wait_for_log("The run has ended")

    # Then the lines about it have these keys
    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    (failed,) = [line for line in lines if "Failed to deserialize" in line["message"]]
    (ended,) = [line for line in lines if "The run has ended" in line["message"]]
    about = {"run": run.pk, "batch": "1/1", "attempt": 1, "model": "lesson", "levelname": "WARNING"}
    assert about.items() <= failed.items()
    assert (ended["run"], ended["name"], ended["levelname"]) == (run.pk, "morango_celery.runs", "WARNING")
    assert not {"batch", "attempt", "model"} & set(ended)

    # ... and Celery's own are JSON, too
    assert {line["name"] for line in lines} >= {"celery.app.trace", "celery.apps.worker"}
