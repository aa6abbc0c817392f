"""The first serialization of a database that Morango hasn't given an identity yet."""

from __future__ import annotations

from threading import Event, Thread

import pytest
from django.db import connection, transaction
from morango.models.core import DatabaseIDModel

from morango_celery.models import Run
from morango_celery.runs.producer import create_run, start
from worker.school.models import PROFILE

SECONDS = 10


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_database_gets_one_identity_though_two_processes_ask_at_once() -> None:
    DatabaseIDModel.objects.all().delete()
    created, finished = Event(), Event()

    def give_identity() -> None:
        with transaction.atomic():
            DatabaseIDModel.objects.create()
            created.set()
            assert _someone_waits(finished)
        connection.close()

    # Given another process that is about to give the database its identity
    other = Thread(target=give_identity)
    other.start()
    assert created.wait(SECONDS)

    # When a run starts
    run = create_run(PROFILE, None)
    start(run.pk)
    finished.set()
    other.join()

    # Then it has waited for that, and there is one
    assert DatabaseIDModel.objects.filter(current=True).count() == 1
    assert Run.objects.get(pk=run.pk).state == Run.State.COMPLETED


def _someone_waits(finished: Event) -> bool:
    """Until another session waits for a lock, or has gone on without."""
    for _ in range(SECONDS * 50):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return True
        if finished.wait(0.02):
            return True
    return False
