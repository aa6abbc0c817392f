"""Many small syncs of Kolibri: learners' devices push their work to a server that has the facilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count, islice

from django.db import transaction
from morango.models.certificates import Filter
from morango.models.core import RecordMaxCounter, Store, SyncableModel

from bench.cases import DELETIONS, TWO_PREFIXES, number_of_syncs, size_of
from bench.kolibri import facility
from tests.kolibri.load import load
from tests.kolibri.records import Recording, Row, live

SESSIONS = 2
"""Sessions of a learner since the last sync, by the number of the sync's records."""


def write(case: str, records: int) -> None:
    """Fill the database with deserialized facilities, and with the arriving records of one learner for
    each sync."""
    from morango_celery import deserialize_from_store

    facilities = (facility(number) for number in count())
    learners: list[list[Row]] = []
    while len(learners) < number_of_syncs(case, records):
        recording = next(facilities)
        load(recording)
        learners += _learners(recording)
    deserialize_from_store("facilitydata")
    arriving = _deleted if case.endswith(DELETIONS) else _new
    for learner in learners[: number_of_syncs(case, records)]:
        _arrive(arriving(learner, size_of(case)))


def filters(case: str, records: int) -> list[Filter]:
    """Return the filter of each sync, those for warming up first."""
    waiting = Store.objects.filter(dirty_bit=True).order_by("partition").values_list("partition", flat=True)
    partitions = list(waiting.distinct())
    assert len(partitions) == number_of_syncs(case, records)
    if not case.endswith(TWO_PREFIXES):
        return [Filter(partition) for partition in partitions]
    # As Kolibri's devices of one learner have it: what others say of them, and what they did
    return [Filter(f"{partition.replace(':user-rw:', ':user-ro:')}\n{partition}") for partition in partitions]


def _learners(recording: Recording) -> list[list[Row]]:
    """Return the records of each learner that has logs of each kind, in an order of their own."""
    found: dict[str, list[Row]] = {}
    for row in recording.store:
        if ":user-rw:" in row["partition"]:
            found.setdefault(row["partition"], []).append(row)
    return [rows for _, rows in sorted(found.items()) if live(rows, "attemptlog")]


def _new(learner: list[Row], records: int) -> Iterator[Row]:
    """Yield a learner's new records: the summary of a content, sessions, and attempts in these."""
    sessions = min(SESSIONS, records - 2)
    summary, session, attempt = (
        live(learner, name)[0] for name in ("contentsummarylog", "contentsessionlog", "attemptlog")
    )
    yield summary
    begun = [_another(session, number) for number in range(sessions)]
    yield from begun
    for number in range(records - 1 - sessions):
        yield _another(attempt, number, sessionlog_id=begun[number % sessions]["id"])


def _deleted(learner: list[Row], records: int) -> Iterator[Row]:
    for row in islice(live(learner, "attemptlog"), records):
        yield {**row, "deleted": True}


def _another(row: Row, number: int, **fields: str) -> Row:
    """Return a record like it, with an id of its own, as Kolibri would calculate it."""
    source_id = hashlib.md5(f"{row['id']} {number}".encode()).hexdigest()
    key = SyncableModel.compute_namespaced_id(row["partition"], source_id, row["model_name"])
    changed = {"id": key, "_morango_source_id": source_id, **fields}
    serialized = json.dumps({**json.loads(row["serialized"]), **changed})
    return {**row, "id": key, "source_id": source_id, "serialized": serialized}


@transaction.atomic
def _arrive(rows: Iterator[Row]) -> None:
    """Write records as a sync leaves them; those that are there are replaced."""
    arrived = [Store(**{**row, "last_saved_counter": row["last_saved_counter"] + 1}) for row in rows]
    ids = [row.id for row in arrived]
    known = set(Store.objects.filter(id__in=ids).values_list("id", flat=True))
    RecordMaxCounter.objects.filter(store_model_id__in=ids).delete()
    Store.objects.bulk_update(
        [row for row in arrived if row.id in known], ["dirty_bit", "deleted", "last_saved_counter"]
    )
    Store.objects.bulk_create(row for row in arrived if row.id not in known)
    RecordMaxCounter.objects.bulk_create(
        RecordMaxCounter(
            store_model_id=row.id, instance_id=row.last_saved_instance, counter=row.last_saved_counter
        )
        for row in arrived
    )
