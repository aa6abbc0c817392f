"""Instances read by their ids, by statements that are made once: Django compiles each query anew."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from django.db import connection, router
from django.db.models import Field, Manager, Model
from morango.models.fields.uuids import UUIDField

from morango_celery.db.dialect import dialect
from morango_celery.deserialization.identifiers import column_name, table_name
from morango_celery.deserialization.statements import MAX_STATEMENTS
from morango_celery.django_compat import ModelQuery, model_query


def read_instances(model: type[Model], attname: str, values: Collection[Any]) -> list[Model]:
    """Return the rows of the model's base manager that have one of these values, as instances.

    :param attname: name of the field with these values; they are given as the database holds them
    :raises ValueError, OverflowError: a row holds a value that Python can't, as a year beyond 9999
    """
    key = model._meta.get_field(attname)
    query = _query(model, key) if isinstance(key, Field) else None
    if query is None:
        return list(model._base_manager.filter(**{f"{attname}__in": values}))
    ids = dialect().ids(values)
    with connection.cursor() as cursor:
        cursor.execute(query.text, [ids])
        rows = cursor.fetchall()
    return [model.from_db(connection.alias, query.names, _converted(row, query)) for row in rows]


def _converted(row: tuple[Any, ...], query: ModelQuery) -> tuple[Any, ...] | list[Any]:
    if not query.converters:
        return row
    values = list(row)
    for place, convert, expression in query.converters:
        values[place] = convert(values[place], expression, connection)
    return values


@lru_cache(maxsize=MAX_STATEMENTS)
def _query(model: type[Model], key: Field[Any, Any]) -> ModelQuery | None:
    """Return the query of a model by one of its fields.

    :returns: None where a manager or router has a say, and where keys or tables are of another kind
    """
    alias = router.db_for_read(model)
    spans_tables = any(not parent._meta.abstract for parent in model._meta.get_parent_list())
    is_managed = type(model._base_manager) is not Manager or alias != connection.alias
    if is_managed or spans_tables or type(key) is not UUIDField:
        return None
    compiled = model_query(model, alias)
    if compiled.parameters:
        return None
    sought = f"{table_name(model)}.{column_name(key)}"
    return compiled._replace(text=f"{compiled.text} WHERE {sought} {dialect().id_list}")
