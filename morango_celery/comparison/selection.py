"""Selection of the records to compare: in the transaction, all others are made clean, and a sample dirty."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache

from django.db import connection
from django.db.models import QuerySet
from morango.models.core import Store, SyncableModel

from morango_celery.comparison.report import Request
from morango_celery.db.dialect import dialect
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.reading.cursors import stream
from morango_celery.reading.filters import under_filter
from morango_celery.stream import chunked
from morango_celery.upstream import registered_models

DEFAULT_SAMPLE_RECORDS = 1000
"""Number of records that are replayed if no other is asked for."""

_CHUNK_ROWS = 1000
_TABLE = "morango_celery_selected"


def records_of(request: Request) -> QuerySet[Store]:
    """Return the Store rows of the profile under the filter, clean ones included."""
    stored: QuerySet[Store] = Store.objects.filter(
        under_filter("partition", request.sync_filter), profile=request.profile
    )
    if request.transfer_session_id is not None:
        stored = stored.filter(last_transfer_session_id=request.transfer_session_id)
    return stored


def waiting_records(request: Request) -> QuerySet[Store]:
    """Return the dirty Store rows, but for quarantined ones."""
    return records_of(request).filter(~is_quarantined(), dirty_bit=True)


def select(request: Request) -> int:
    """Leave dirty what is to be compared, and nothing else, until the transaction is rolled back.

    :returns: number of quarantined records among those that waited
    Cost: a constant number of statements; a few more for each thousand selected records if not all waiting
    ones are taken.
    """
    whole = Request(request.profile, request.sync_filter)
    quarantined = _set_clean(records_of(whole).filter(is_quarantined(), dirty_bit=True))
    if request.records is None and request.transfer_session_id is None and not request.replay:
        return quarantined
    with _selected_alone(whole):
        _select_first(request)
        _select_targets(request, whole)
        if request.replay:
            selected = Store.objects.extra(where=[f"id IN (SELECT id FROM {_TABLE})"])
            selected.update(dirty_bit=True)
    return quarantined


def select_alone(request: Request, ids: Collection[str]) -> None:
    """Leave dirty, of the waiting records, only those with these ids, and the targets of these."""
    with _selected_alone(Request(request.profile, request.sync_filter)) as whole:
        _insert_ids(waiting_records(whole), ids, 0)
        _select_targets(whole, whole)


@contextmanager
def _selected_alone(whole: Request) -> Iterator[Request]:
    """Make those records clean, at the end of the block, that were not selected in it."""
    table = connection.ops.quote_name(Store._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE {_TABLE} AS SELECT id, 0 AS round FROM {table} WHERE 1 = 0")
        cursor.execute(f"CREATE UNIQUE INDEX {_TABLE}_id ON {_TABLE} (id)")
        yield whole
        others = [f"{table}.id NOT IN (SELECT id FROM {_TABLE})"]
        _set_clean(records_of(whole).filter(dirty_bit=True).extra(where=others))
        cursor.execute(f"DROP TABLE {_TABLE}")


def _set_clean(rows: QuerySet[Store]) -> int:
    return rows.update(dirty_bit=False)


def _select_first(request: Request) -> None:
    """Select waiting records, and then clean ones as well: equally many of each model, if it has so many."""
    left = request.records
    if left is None and request.transfer_session_id is None:
        left = DEFAULT_SAMPLE_RECORDS
    left = _insert(waiting_records(request), left)
    if not request.replay:
        return
    models = registered_models(request.profile)
    for number, model in enumerate(models):
        clean = records_of(request).filter(dirty_bit=False, model_name=model.morango_model_name)
        share = None if left is None else -(-left // (len(models) - number))
        if share is None or left is None:
            _insert(clean, None)
        else:
            left -= share - (_insert(clean, share) or 0)


def _insert(rows: QuerySet[Store], most: int | None) -> int | None:
    """Select rows; ids are random, so their order makes a sample.

    :returns: number of records that may still be selected; None if there is no limit
    """
    if most is not None and most <= 0:
        return most
    ordered = rows.order_by("id").values("id")
    sql, parameters = (ordered if most is None else ordered[:most]).query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {_TABLE} (id, round) SELECT id, 0 FROM ({sql}) AS chosen", parameters)
        return None if most is None else most - cursor.rowcount


def _select_targets(request: Request, whole: Request) -> None:
    """Select the targets of selected records, and theirs; without `replay` only those that wait."""
    targets = records_of(whole) if request.replay else waiting_records(whole)
    current = 0
    found = True
    while found:
        found = False
        selected = Store.objects.extra(where=[f"id IN (SELECT id FROM {_TABLE} WHERE round = {current})"])
        rows = stream(selected.values_list("model_name", "serialized", "_self_ref_fk"), _CHUNK_ROWS)
        for chunk in chunked(rows, _CHUNK_ROWS):
            ids = {target for row in chunk for target in _targets(request.profile, *row)}
            found |= bool(_insert_ids(targets, ids, current + 1))
        current += 1


def _insert_ids(targets: QuerySet[Store], ids: Collection[str], current: int) -> int:
    ids = [one for one in ids if _is_id(one)]
    if not ids:
        return 0
    table = connection.ops.quote_name(Store._meta.db_table)
    rows = targets.extra(
        where=[f"{table}.id {dialect().id_list}", f"{table}.id NOT IN (SELECT id FROM {_TABLE})"],
        params=[dialect().ids(ids)],
    ).values("id")
    text, values = rows.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {_TABLE} (id, round) SELECT id, {current} FROM ({text}) AS t", values)
        return int(cursor.rowcount)


def _targets(profile: str, model_name: str, serialized: str, self_ref_fk: str) -> Iterator[str]:
    """Yield the ids that a record refers to, where they can be ids."""
    if self_ref_fk:
        yield self_ref_fk
    try:
        values = json.loads(serialized)
    except ValueError:  # its error is a result, like others
        return
    if not isinstance(values, dict):
        return
    for name in _reference_names(profile).get(model_name, ()):
        value = values.get(name)
        if isinstance(value, str) and _is_id(value):
            yield value


def _is_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


@lru_cache(maxsize=32)
def _reference_names(profile: str) -> dict[str, list[str]]:
    return {
        model.morango_model_name: [
            field.attname
            for field in model._meta.concrete_fields
            if field.related_model is not None and issubclass(field.related_model, SyncableModel)
        ]
        for model in registered_models(profile)
    }
