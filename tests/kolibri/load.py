"""Put a recording into the database, as the receiving end of a sync would have left it."""

from __future__ import annotations

from django.db import transaction
from morango.models.core import DatabaseMaxCounter, RecordMaxCounter, Store

from tests.kolibri.records import Recording


@transaction.atomic
def load(recording: Recording) -> None:
    """Write Store rows and counters in the order given; rows already there are replaced.

    Replaced rows go to the end of the table, as rows updated by a sync do on PostgreSQL.
    """
    Store.objects.filter(
        id__in=[row["id"] for row in recording.store]
    ).delete()  # and its counters, by cascade
    Store.objects.bulk_create([Store(**row) for row in recording.store])
    RecordMaxCounter.objects.bulk_create([RecordMaxCounter(**row) for row in recording.record_max_counters])
    for row in recording.database_max_counters:
        DatabaseMaxCounter.objects.update_or_create(
            instance_id=row["instance_id"],
            partition=row["partition"],
            defaults={"counter": row["counter"]},
        )
