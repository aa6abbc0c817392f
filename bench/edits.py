"""Local edits that wait to be serialized: a school's app rows, and how many of them are dirty."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection

from bench.data import school

FEW = 100
"""App rows that the case "few_edits" has edited, whatever the number of all rows."""


def new(records: int) -> None:
    """All app rows are new: the Store holds nothing."""
    _deserialize(records)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM morango_recordmaxcounter")
        cursor.execute("DELETE FROM morango_store")
    _dirty()


def changed(records: int) -> None:
    """All app rows have been serialized once, and edited since."""
    new(records)
    _serialize()
    _dirty()


def few(records: int) -> None:
    """The same of `FEW` attempts; all other rows are clean."""
    new(records)
    _serialize()
    from worker.school.models import Attempt

    ids = list(Attempt.objects.order_by("pk").values_list("pk", flat=True)[:FEW])
    Attempt.objects.filter(pk__in=ids).update(update_dirty_bit_to=True)


CASES: dict[str, Callable[[int], None]] = {"new_rows": new, "changed_rows": changed, "few_edits": few}


def _deserialize(records: int) -> None:
    from bench.load import write
    from morango_celery import deserialize_from_store
    from worker.school.models import PROFILE

    write(school(records))
    deserialize_from_store(PROFILE)


def _serialize() -> None:
    from morango_celery import serialize_into_store
    from worker.school.models import PROFILE

    serialize_into_store(PROFILE)


def _dirty() -> None:
    from morango_celery.upstream import registered_models
    from worker.school.models import PROFILE

    for model in registered_models(PROFILE):
        model.syncing_objects.update(update_dirty_bit_to=True)
