"""Code blocks of the pages for operators: they do as the page says."""

from __future__ import annotations

import datetime
import re

import pytest
from django.utils import timezone
from morango.models import InstanceIDModel

from morango_celery.models import Batch, Run
from tests.support.processes import ROOT

pytestmark = pytest.mark.django_db


def python_block(name: str) -> str:
    """Return the only Python block of a page of docs/how-to."""
    page = (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return str(block)


DELETE_RUNS = python_block("operate.md")
RENEW_DATABASE = python_block("upgrade.md")


def test_runs_that_ended_long_ago_can_be_deleted_with_their_batches() -> None:
    # Given three runs, of which one ended long ago
    long_ago = timezone.now() - datetime.timedelta(days=91)
    old, recent, unfinished = [
        Run.objects.create(profile="school", created_at=long_ago, finished_at=finished_at)
        for finished_at in (long_ago, timezone.now(), None)
    ]
    for run in (old, recent, unfinished):
        Batch.objects.create(run=run, stage=1, number=1, size=1, ids_sha256="")

    exec(DELETE_RUNS, {})

    assert set(Run.objects.all()) == {recent, unfinished}
    assert Batch.objects.count() == 2


def test_restored_database_becomes_another_instance() -> None:
    before, _ = InstanceIDModel.get_or_create_current_instance(clear_cache=True)

    exec(RENEW_DATABASE, {})

    after, is_new = InstanceIDModel.get_or_create_current_instance(clear_cache=True)
    assert is_new
    assert after.id != before.id
