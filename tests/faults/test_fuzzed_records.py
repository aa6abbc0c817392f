"""Broken records among sound ones: no batch fails, the sound ones are saved, the broken ones say why not.

``FUZZ_RECORDS`` and ``FUZZ_SEED`` in the environment, or ``make fuzz``, choose how many there are and which.
"""

from __future__ import annotations

import json
import os
import random
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from morango.models import DeletedModels, Store

import morango_celery
from morango_celery import deserialize_from_store
from morango_celery.models import Batch, Run
from tests.faults import healthy
from tests.faults.causes import says_why
from tests.faults.fuzzed_records import FuzzedRecord, fuzzed_records
from tests.support.comparison import existing, rolled_back, save_all
from tests.support.factories import app_rows, build_store_row
from tests.support.workers import StartWorker

WORLDS = {"school": healthy.school, "model_zoo": healthy.model_zoo}
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
LONGEST_LINE = 10_000
AT_ONCE = 50
"""Broken records of each world in one run."""
RECORDS = int(os.environ.get("FUZZ_RECORDS", "500"))
SEED = os.environ.get("FUZZ_SEED", "1")
CHUNKS = [f"seed-{SEED}-{number}" for number in range(-(-RECORDS // (AT_ONCE * len(WORLDS))))]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> healthy.World:
    return WORLDS[request.param]()


def stored(broken: Sequence[FuzzedRecord]) -> list[FuzzedRecord]:
    """Those that the database agrees to store, and so could ever arrive."""
    kept = []
    for fuzzed in broken:
        try:
            with transaction.atomic():
                fuzzed.row.save(force_insert=True)
        except (DataError, ValueError):
            columns = [value for value in vars(fuzzed.row).values() if isinstance(value, str)]
            assert any("\x00" in value or len(value) > 32 for value in columns), str(fuzzed)
        else:
            kept.append(fuzzed)
    return kept


def with_targets(world: healthy.World) -> None:
    """Save the app rows that the broken records' older versions refer to."""
    save_all([], [existing(target) for target in world.targets])


def store_rows(ids: set[str]) -> dict[str, Any]:
    columns = ("dirty_bit", "deserialization_error", "deserialization_exception", "serialized")
    return {row[0]: row[1:] for row in Store.objects.filter(id__in=ids).values_list("id", *columns)}


def state_of(world: healthy.World) -> dict[tuple[str, str], Any]:
    """Return the valid records, in the app tables and in the Store, by table and id."""
    ids = {row.id for row in world.healthy}
    found: dict[tuple[str, str], Any] = {("store", pk): row for pk, row in store_rows(ids).items()}
    for name, rows in _by_id(world.profile).items():
        found.update({(name, row["id"]): row for row in rows if row["id"] in ids})
    return found


def require_same(world: healthy.World, alone: dict[tuple[str, str], Any]) -> None:
    along = state_of(world)
    # A broken record may have taken a sound one's id for its row in another table
    changed = {key: (row, along.get(key)) for key, row in alone.items()}
    assert {key: both for key, both in changed.items() if both[0] != both[1]} == {}


def _by_id(profile: str) -> dict[str, list[dict[str, Any]]]:
    tables = app_rows(profile)
    return {
        name: [{**row, "id": row.get("id", row.get("vehicle_ptr_id"))} for row in rows]
        for name, rows in tables.items()
    }


def require_verdicts(world: healthy.World, broken: Sequence[FuzzedRecord]) -> None:
    """Each broken record is saved or deleted, or it is dirty and says why."""
    in_app = {row["id"] for rows in _by_id(world.profile).values() for row in rows}
    noted = set(DeletedModels.objects.values_list("id", flat=True))
    for fuzzed in broken:
        if fuzzed.row.profile != world.profile or not fuzzed.row.dirty_bit:
            continue  # not in this run
        row = Store.objects.get(pk=fuzzed.row.pk)
        text, path = row.deserialization_error, row.deserialization_exception
        if row.dirty_bit:
            assert text is not None, str(fuzzed)
            assert says_why(text, row), f"{text!r:.300} ({path}) of {fuzzed}"
            assert path.rpartition(".")[0], str(fuzzed)
            continue
        assert (text, path) == (None, None), str(fuzzed)
        if not (row.deleted or row.hard_deleted or row.id in noted):
            assert key_in(row.serialized) in {None, *in_app}, str(fuzzed)


def key_in(serialized: str) -> str | None:
    """Return the id of the JSON's app row; None if it names none, and so gets a random one."""
    data = json.loads(serialized)
    named = data.get("id") if isinstance(data, dict) else None
    return uuid.UUID(named).hex if named else None


@pytest.mark.parametrize(
    "text",
    ["", "None", "'invalid'", "KeyError: 'invalid'", "object of type 'int' has no len()", "It failed."],
)
def test_text_that_names_nothing_says_nothing(text: str) -> None:
    learner = build_store_row("learner", unit_id=2, username="id", full_name=None)
    assert not says_why(text, learner)


@pytest.mark.parametrize("seed", CHUNKS)
@pytest.mark.django_db
def test_broken_records_affect_no_others_and_name_their_fault(
    settings: Any, world: healthy.World, seed: str
) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True
    chance = random.Random(seed)
    size = chance.choice((1000, 20, 5))
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": size}

    # Given the outcome of valid records by themselves
    with rolled_back():
        Store.objects.bulk_create(world.healthy)
        deserialize_from_store(world.profile)
        alone = state_of(world)
    assert all(row[:2] == (False, None) for (table, _), row in alone.items() if table == "store")

    # When they are deserialized along with broken ones
    Store.objects.bulk_create(world.healthy)
    broken = stored(list(fuzzed_records(world, AT_ONCE, seed)))
    assert len(broken) > AT_ONCE // 2
    if chance.random() < 0.5:
        with_targets(world)
        save_all([], [fuzzed.older for fuzzed in broken if fuzzed.older is not None])
    run = deserialize_from_store(world.profile)
    connection.check_constraints()

    # Then they come out the same, and each broken one has its verdict
    assert run.state == Run.State.COMPLETED
    require_same(world, alone)
    require_verdicts(world, broken)


@pytest.mark.django_db(transaction=True)
def test_worker_outlives_broken_records(celery_worker_process: StartWorker, world: healthy.World) -> None:
    # Given sound records by themselves
    with rolled_back():
        Store.objects.bulk_create(world.healthy)
        deserialize_from_store(world.profile)
        alone = state_of(world)

    # When a worker finds them among broken ones
    Store.objects.bulk_create(world.healthy)
    broken = stored(list(fuzzed_records(world, AT_ONCE, f"worker-{SEED}")))
    worker = celery_worker_process(
        DJANGO_SETTINGS_MODULE="tests.settings", MORANGO_CELERY_BATCH_SIZE_RECORDS="30"
    )
    run = morango_celery.deserialize(world.profile, wait=60)

    # Then no batch was tried more than once, and the same comes of it as in this process
    assert set(Batch.objects.values_list("state", "attempts")) == {(Batch.State.DONE, 1)}
    assert run.state == Run.State.COMPLETED
    require_same(world, alone)
    require_verdicts(world, broken)
    assert worker.is_running

    # And nothing that they hold reaches the log raw, or whole
    assert "Failed to deserialize Store record" in worker.log()
    assert not UNPRINTABLE.search(worker.log())
    assert all(len(line) < LONGEST_LINE for line in worker.log().splitlines())
