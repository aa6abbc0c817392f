"""Names of tables and columns, as statements take them and as PostgreSQL keeps them.

A model's name is passed on as Django does it: quoted, unless it has quotes already (``"schema"."table"``).
"""

from __future__ import annotations

from typing import Any, cast

from django.db import connection
from django.db.models import Field, Model, QuerySet

MAX_NAME_BYTES = 63
"""PostgreSQL cuts off the rest of a name, wherever one stands in a statement; but in no value."""


def table_name(model: type[Model]) -> str:
    """Return the model's table as it stands in a statement."""
    return connection.ops.quote_name(model._meta.db_table)


def column_name(field: Field[object, object]) -> str:
    """Return the field's column as it stands in a statement."""
    return connection.ops.quote_name(field.column)


def column_of(model: type[Model], attname: str) -> str:
    """Return the `column_name` of the field that is called so."""
    # The field is referred to by an id, or is a column of Morango's: no relation without a column
    return column_name(cast("Field[object, object]", model._meta.get_field(attname)))


def primary_key(model: type[Model]) -> Field[Any, Any]:
    """Return the primary key of a model. Only an abstract one has none, and has no rows either."""
    return cast("Field[Any, Any]", model._meta.pk)


def kept_name(field: Field[object, object]) -> str:
    """Return the field's column as PostgreSQL keeps its name; so it is called in JSON that becomes a row."""
    name = as_sent(column_name(field))[1:-1].replace('""', '"')
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def locking(rows: QuerySet[Any], *, no_key: bool = False) -> QuerySet[Any]:
    """Return a query that locks the rows of its model's own table, and none that it joins.

    :param no_key: whether others may still refer to them
    """
    if '"."' not in rows.model._meta.db_table:
        return rows.select_for_update(no_key=no_key, of=("self",))
    # PostgreSQL takes no qualified name there; where nothing is joined, none has to be told
    return rows.select_related(None).select_for_update(no_key=no_key)


def as_sent(part: str) -> str:
    """Return a part of a statement that has parameters as the driver sends it."""
    return part.replace("%%", "%")


def as_written(part: str) -> str:
    """Return a text as it stands in a statement that has parameters."""
    return part.replace("%", "%%")


def quoted(name: str) -> str:
    """Return a name that the database keeps as it stands in a statement that has parameters."""
    return as_written('"{}"'.format(name.replace('"', '""')))
