"""The least that deserializing costs on PostgreSQL: the server alone, from Store to app tables.

Nothing is validated, no error isolated, no foreign key looked up; no row leaves the server.
"""

from __future__ import annotations

from django.db import connection, transaction
from morango.models.core import Store, SyncableModel
from morango.registry import syncable_models


@transaction.atomic
def deserialize(profile: str) -> None:
    """One upsert a model, and one update of the Store."""
    store = connection.ops.quote_name(Store._meta.db_table)
    waiting = f"{store}.profile = %s AND {store}.dirty_bit"
    with connection.cursor() as cursor:
        for model in syncable_models.get_models(profile):
            cursor.execute(
                f"{_upsert(model, store)} WHERE {waiting} AND model_name = %s {_rule(model)}",
                [profile, model.morango_model_name],
            )
        cursor.execute(
            f"UPDATE {store} SET dirty_bit = false, deserialization_error = NULL,"
            f" deserialization_exception = NULL WHERE {waiting}",
            [profile],
        )


def _columns(model: type[SyncableModel]) -> list[str]:
    return [field.column for field in model._meta.concrete_fields if field.column != "_morango_dirty_bit"]


def _upsert(model: type[SyncableModel], store: str) -> str:
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    names = [quote(column) for column in _columns(model)]
    return (
        f"INSERT INTO {table} ({', '.join(names)}, _morango_dirty_bit)"
        f" SELECT {', '.join(f'record.{name}' for name in names)}, false"
        f" FROM {store}, json_populate_record(NULL::{table}, {store}.serialized::json) AS record"
    )


def _rule(model: type[SyncableModel]) -> str:
    quote = connection.ops.quote_name
    names = [quote(column) for column in _columns(model) if column != model._meta.pk.column]
    updates = ", ".join(f"{name} = excluded.{name}" for name in [*names, "_morango_dirty_bit"])
    return f"ON CONFLICT ({quote(model._meta.pk.column)}) DO UPDATE SET {updates}"
