"""Local edits that wait to be serialized: a school's app rows, and how many of them are dirty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from django.db import connection

from bench import prefixes
from bench.data import StoreRow, school

FEW = 100
"""Number of edited app rows in the case "few_edits", independent of the number of all rows."""


def new(records: int) -> None:
    """All app rows are new: the Store holds nothing."""
    _make_new(school(records))


def _make_new(rows: Iterable[StoreRow]) -> None:
    _deserialize(rows)
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
    """Edit `FEW` attempts; all other rows are clean."""
    new(records)
    _serialize()
    from worker.school.models import Attempt

    ids = list(Attempt.objects.order_by("pk").values_list("pk", flat=True)[:FEW])
    Attempt.objects.filter(pk__in=ids).update(update_dirty_bit_to=True)


def under_prefixes(name: str, records: int) -> None:
    """All app rows of a case of ``bench.prefixes`` have been serialized once, and edited since."""
    _make_new(prefixes.CASES[name](records))
    _serialize()
    _dirty()


CASES: dict[str, Callable[[int], None]] = {
    "new_rows": new,
    "changed_rows": changed,
    "few_edits": few,
    **{f"edited_{name}": partial(under_prefixes, name) for name in prefixes.CASES},
}


def _deserialize(rows: Iterable[StoreRow]) -> None:
    from bench.store_rows import write
    from morango_celery import deserialize_from_store
    from worker.school.models import PROFILE

    write(rows)
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
