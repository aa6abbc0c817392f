"""Memory is bounded by bytes: records of any size are worked on in the memory of a few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.model_zoo.rows import build_zoo_row
from tests.support.factories import build_store_row
from tests.support.processes import ROOT

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

RECORDS, RECORD_BYTES = 60, 2_000_000
MOST_MB = 60
"""Memory that a step may add to the steps before it; all records together have twice as much."""

STEPS = """
import sys
import django
from bench.processes import peak_rss_mb
django.setup()
from django.db import transaction
from morango.models import Store
from morango_celery import deserialize_from_store
from morango_celery.deserialization import StoreModelSource, deserialize_batch
from morango_celery.serialization import AppModelSource, serialize_into_store
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from worker.school.models import PROFILE, Attempt

RECORDS = int(sys.argv[1])

def begin():
    deserialize_from_store("neighbours")

def read_the_store():
    assert sum(1 for _ in StoreModelSource(PROFILE, dirty_only=False).stream()) == RECORDS + 2

def deserialize():
    run = deserialize_from_store(PROFILE)
    assert (run.saved, run.failed) == (RECORDS + 2, 0), run

def add_a_key():
    for row in Store.objects.filter(model_name="attempt").iterator(chunk_size=1):
        row.serialized = row.serialized[:-1] + ', "of_a_later_version": 1}'
        row.save(update_fields=["serialized"])

def serialize():
    Attempt.objects.update(update_dirty_bit_to=True)
    serialize_into_store(PROFILE)
    assert not Attempt.objects.filter(_morango_dirty_bit=True).exists()

def read_app_rows():
    source = AppModelSource(PROFILE, dirty_only=False, partition_order=None)
    assert sum(1 for _ in source.stream()) == RECORDS + 2

def serialize_new_rows():
    for store_id in list(Store.objects.filter(model_name="attempt").values_list("pk", flat=True)):
        Store.objects.filter(pk=store_id).delete()
    serialize()

def follow_a_cycle():
    with transaction.atomic():
        deserialize_batch(MODEL_ZOO, ["c" + "0" * 31], strict=True)

for name in sys.argv[2:]:
    globals()[name]()
    print(name, peak_rss_mb(), flush=True)
"""


def peaks_mb(database_url: str, *steps: str) -> Iterator[tuple[str, float]]:
    """Yield the peak of one process after each step."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(RECORDS), *steps],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stdout.splitlines():
        name, peak = line.split()
        yield name, float(peak)


def require_flat(database_url: str, *steps: str) -> None:
    (_, before), *peaks = peaks_mb(database_url, "begin", *steps)
    assert [name for name, _ in peaks] == list(steps)
    print(before, peaks)
    for step, peak in peaks:
        assert peak - before < MOST_MB, f"{step} took {peak - before:.0f} MB more"
        before = peak


def fat(text: str) -> str:
    return text * (RECORD_BYTES // len(text))


def test_large_records_are_worked_on_a_few_at_a_time(database_url: str) -> None:
    unit = build_store_row("unit")
    learner = build_store_row("learner", unit=unit)
    unit.save(force_insert=True)
    learner.save(force_insert=True)
    for number in range(RECORDS):
        build_store_row("attempt", learner=learner, answer=fat(f"{number:07} ")).save(force_insert=True)

    require_flat(
        database_url,
        *("read_the_store", "deserialize", "add_a_key", "serialize", "read_app_rows", "serialize_new_rows"),
    )


def test_batch_claims_no_more_members_of_a_cycle_than_fit(database_url: str) -> None:
    """Members and clubs refer to each other, so that one leads to all."""
    ids = [f"c{number:031x}" for number in range(RECORDS)]
    for number, store_id in enumerate(ids):
        following = ids[(number + 1) % RECORDS]
        references: dict[str, object]
        references = {"president_id": following} if number % 2 else {"club_id": following, "number": number}
        row = build_zoo_row("club" if number % 2 else "member", id=store_id, **references)
        row.serialized = json.dumps({**json.loads(row.serialized), "of_a_later_version": fat("x")})
        row.save(force_insert=True)

    require_flat(database_url, "follow_a_cycle")
