"""Code blocks of docs/how-to/operate.md: they do as the page says."""

from __future__ import annotations

import datetime
import re

import pytest
from django.utils import timezone
from morango.models import InstanceIDModel

from morango_celery.models import Batch, Run
from tests.support.processes import ROOT

pytestmark = pytest.mark.django_db

PAGE = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
DELETE_RUNS, RENEW_DATABASE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


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


def test_a_restored_database_becomes_another_instance() -> None:
    before, _ = InstanceIDModel.get_or_create_current_instance(clear_cache=True)

    exec(RENEW_DATABASE, {})

    after, is_new = InstanceIDModel.get_or_create_current_instance(clear_cache=True)
    assert is_new
    assert after.id != before.id
