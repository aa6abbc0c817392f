"""Private and undocumented names of Django's that this project relies on, in one place.

Checked against the releases in `CHECKED`; `checks/versions.py` compares them with the installed one. Where
releases differ, a function here has both forms, and looks at Django itself to choose. Documented names with
an underscore are used anywhere: ``_meta``, ``_state.adding``, ``_state.db``, ``_base_manager``,
``_default_manager``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import ForeignKey, Model, QuerySet
from django.db.models.deletion import Collector
from django.db.models.signals import pre_delete
from django.db.models.sql import InsertQuery, UpdateQuery
from django.dispatch import Signal
from django.utils import timezone

CHECKED: Mapping[str, Sequence[str]] = {"Django": ("3.2.25", "4.2.30", "5.2.19")}
"""Releases that these names were checked against, by distribution."""

UTC: datetime.tzinfo = vars(timezone).get("utc", datetime.UTC)
"""Time zone of the times that Django reads in UTC: an object of pytz before Django 4, Python's own since."""

SAVING = ("save", "save_base", "_save_table", "_save_parents", "_do_update", "_do_insert")
"""Methods that a model's ``save()`` consists of."""


def delete_unread(rows: QuerySet[Any], alias: str) -> int:
    """Delete rows in one statement, without reading them, following their relations or sending signals.

    :returns: the number of rows deleted
    """
    found: Any = rows
    deleted: int = found._raw_delete(alias)
    return deleted


class CollectorWithoutPostDelete(Collector):
    """Collector of rows to delete while ``post_delete`` is muted: more can be deleted without being read."""

    def _has_signal_listeners(self, model: type[Model]) -> bool:
        return pre_delete.has_listeners(model)


class FieldUpdates(NamedTuple):
    """Rows that a deletion would update, as ``SET_NULL`` asks for."""

    instances: list[Model]
    queries: list[QuerySet[Any]]
    """Rows that nobody has read yet, and that one statement is going to update. Since Django 4.2."""


def field_updates(collector: Collector) -> FieldUpdates:
    """Return the rows that a deletion would update. Cost: none; no row is read for it."""
    found: Any = collector
    updates = FieldUpdates([], [])
    for key, value in found.field_updates.items():
        if isinstance(key, type):  # before Django 4.2: instances by field and value, by model
            updates.instances.extend(instance for instances in value.values() for instance in instances)
            continue
        for rows in value:
            if getattr(rows, "_result_cache", rows) is None:
                updates.queries.append(rows)
            else:
                updates.instances.extend(rows)
    return updates


def write_row(
    instance: Model,
    *,
    using: str,
    force_insert: bool = False,
    force_update: bool = False,
    update_fields: Any = None,
) -> None:
    """Write the row of an instance, and those of its parents: ``Model.save_base`` less its signals."""
    saved: Any = instance
    cls = type(instance)._meta.concrete_model
    with transaction.atomic(using=using, savepoint=False):
        forced = [saved._validate_force_insert(force_insert)] if _PARENTS_CAN_BE_FORCED else []
        inserted = saved._save_parents(cls, using, update_fields, *forced)
        saved._save_table(
            raw=True,
            cls=cls,
            force_insert=force_insert or inserted,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
        )


_PARENTS_CAN_BE_FORCED = "force_insert" in signature(vars(Model)["_save_parents"]).parameters
"""True if ``force_insert`` may name tables of parents: since Django 5.0."""


def receivers_of(signal: Signal, sender: type[Model]) -> Sequence[Callable[..., Any]]:
    """Return the functions that a signal of a model calls."""
    found: Any = signal
    receivers: Sequence[Any] = found._live_receivers(sender)
    if isinstance(receivers, tuple):  # since Django 5.0: synchronous ones, and asynchronous ones
        return [receiver for each in receivers for receiver in each]
    return receivers


def related_instances(instance: Model) -> dict[str, Any]:
    """Return the cache of an instance's related instances, by the names of `cache_name`."""
    found: dict[str, Any] = instance._state.fields_cache
    return found


def replace_related_instances(instance: Model, cache: dict[str, Any]) -> None:
    """Give an instance another cache of related instances."""
    instance._state.fields_cache = cache


def is_generated(field: Any) -> bool:
    """Return True if the database computes a field's column and lets nobody write it (since Django 5.0)."""
    return bool(getattr(field, "generated", False))


def cache_name(field: ForeignKey[Any, Any]) -> str:
    """Return the name of a foreign key's target among `related_instances`."""
    found: Any = field
    # An attribute since Django 5.1, which deprecates the method
    name: str = found.cache_name if hasattr(found, "cache_name") else found.get_cache_name()
    return name


def prefetched_relations(rows: QuerySet[Any]) -> Sequence[Any]:
    """Return the lookups that ``prefetch_related`` has given a query. ``iterator()`` leaves them out."""
    found: Any = rows
    lookups: Sequence[Any] = found._prefetch_related_lookups
    return lookups


def read_with_server_cursor(rows: QuerySet[Any], chunk_rows: int) -> Iterator[Any]:
    """Yield the items of a query by a cursor of the server's, even if DISABLE_SERVER_SIDE_CURSORS is set."""
    in_chunks: Any = rows._iterable_class
    found: Iterator[Any] = iter(in_chunks(rows, chunked_fetch=True, chunk_size=chunk_rows))
    return found


Sql = tuple[str, Sequence[Any]]
"""Text of a statement, and its parameters."""


def select_sql(rows: QuerySet[Any]) -> Sql:
    """Compile the statement that reads rows."""
    text, parameters = rows.query.get_compiler(connection.alias).as_sql()
    return text, parameters


def update_sql(rows: QuerySet[Any], columns: Mapping[str, Any]) -> Sql:
    """Compile the statement that updates rows, as `QuerySet.update` does."""
    query: Any = rows.query.chain(UpdateQuery)
    query.add_update_values(dict(columns))
    text, parameters = query.get_compiler(connection.alias).as_sql()
    return text, parameters


def insert_sql(row: Model, fields: Sequence[Any]) -> Sql:
    """Compile the statement that inserts these fields of an instance."""
    query = InsertQuery(type(row))
    query.insert_values(list(fields), [row])
    compiler: Any = query.get_compiler(connection.alias)
    ((text, parameters),) = compiler.as_sql()
    return text, parameters


Converter = tuple[int, Any, Any]
"""Place of a column, converter of its values, and Django's expression for the column."""


def column_converters(fields: Sequence[Any]) -> list[Converter]:
    """Return the converters from the database's values to Python's, in the order in which they are called."""
    return [
        (place, convert, field.cached_col)
        for place, field in enumerate(fields)
        for convert in (
            *connection.ops.get_db_converters(field.cached_col),
            *field.get_db_converters(connection),
        )
    ]


class ModelQuery(NamedTuple):
    """Compiled query of all rows of a model."""

    text: str
    parameters: Sequence[Any]
    names: tuple[str, ...]
    """Attnames of its columns."""
    converters: tuple[Converter, ...]


def model_query(model: type[Model], alias: str) -> ModelQuery:
    """Compile the query of all rows that the model's base manager has, in no order."""
    compiler: Any = model._base_manager.order_by().query.get_compiler(alias)
    text, parameters = compiler.as_sql()
    columns = [column for column, *_ in compiler.select]
    converters = tuple(
        (place, convert, expression)
        for place, (found, expression) in compiler.get_converters(columns).items()
        for convert in found
    )
    return ModelQuery(text, parameters, tuple(column.target.attname for column in columns), converters)
