"""Conversion of a line's objects to rows of tables, equal to those of Django's deserializer and a raw save.

Each model has a function per column, from JSON values to the driver's, built once. Some objects need
Django's own way: those with natural keys, with a model's or a field's own code, or with a key that the
database assigns. They raise `NotFastPath`, and go through an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from django.apps import apps
from django.core.serializers.base import DeserializedObject
from django.core.serializers.python import Deserializer
from django.db import DEFAULT_DB_ALIAS, connection, models, router
from django.db.models.signals import post_init, pre_init

from morango_celery.conf import settings as core_settings
from morango_celery.db.dialect import dialect
from morango_celery.deserialization.conversions import conversion
from morango_celery.deserialization.traits import has_own_sql
from morango_celery.equivalents import Convert, NotFastPath
from morango_celery.errors import ModelNotIngestedError, UnknownModelError
from morango_celery.oplog.conf import settings
from morango_celery.oplog.meta import AnyField, AnyRelation, Key, concrete, key_field, named, own_fields
from morango_celery.reading.attributes import has_plain_access, is_overshadowed

_PLAIN_FIELDS = ("django.db.models.fields", "morango.models.fields")
"""Modules of fields that store just the value that `to_python` returns."""

_JSON_READABLE = (
    *("bigint", "bigserial", "boolean", "bytea", "char", "date", "double", "inet", "integer", "interval"),
    *("json", "numeric", "serial", "smallint", "smallserial", "text", "time", "uuid", "varchar"),
)
"""Beginnings of the column types that PostgreSQL fills from JSON."""


@dataclass
class ObjectRow:
    """An object that is to be saved, as a row of a table and its many-to-many values."""

    key: Key
    fields: dict[str, Any]
    """Its JSON, as long as `values` are not made of it."""
    values: Sequence[Any] = ()
    """Values of the model's own table, in the order of `Table.fields`."""
    relations: dict[str, Sequence[Any]] = field(default_factory=dict)
    """Many-to-many values, as primary keys, by field name."""
    deferred: DeserializedObject | None = None
    """Fields to be saved once the targets of their natural keys are there."""

    def references(self, table: Table) -> ObjectRow:
        """Return the row with its references as its only values."""
        pairs = zip(table.fields, self.values, strict=True)
        values = [value if own.remote_field else None for own, value in pairs]
        return ObjectRow(self.key, {}, values, self.relations)


@dataclass(frozen=True)
class Table:
    """Plan by which objects of one model become rows."""

    model: type[models.Model]
    fields: tuple[AnyField, ...]
    """Fields of its own table. Parents' rows are objects of their own in a log, as in Django's fixtures."""
    columns: tuple[tuple[str, Callable[[], Any], Convert], ...] | None
    """JSON key, default and conversion of each field. None if objects need Django's own way."""
    relations: dict[str, AnyRelation]
    natural_targets: dict[str, type[models.Model]]
    """Models that a value may name by a natural key, by field name."""
    names: frozenset[str]
    """Names that an object's fields may have."""
    key_position: int
    key_values: Convert
    """Conversion of primary keys to the driver's values."""
    reads_json: bool
    """True if rows can be written in bulk: PostgreSQL fills all their columns from JSON."""

    @cached_property
    def concrete(self) -> type[models.Model]:
        return concrete(self.model)

    @property
    def each(self) -> bool:
        """Return True if every object is written by a raw save of its own."""
        meta = self.model._meta
        ordered = bool(meta.order_with_respect_to)  # saving assigns the place
        own_sql = any(map(has_own_sql, self.fields))
        return ordered or own_sql or not self.reads_json or meta.label in core_settings.SAVE_INDIVIDUALLY

    def key(self, value: Any) -> Key:
        """Return the identity of the object with a primary key.

        :raises Exception: the field's own, for a value that can't be a key
        """
        return self.concrete, self.key_values((value,))[0]

    def row(self, data: dict[str, Any]) -> ObjectRow:
        """Return a row without its values; `fill` makes these.

        :raises NotFastPath: the object needs Django's own way
        :raises Exception: a field's own, for a value that it refuses
        """
        pk, fields = data.get("pk"), data["fields"]
        if self.columns is None or pk is None or not fields.keys() <= self.names:
            raise NotFastPath
        if self.natural_targets and self.natural_lookups(data):
            raise NotFastPath
        relations: dict[str, Sequence[Any]] = {}
        for name, relation in self.relations.items():
            if name in fields:
                target = key_field(relation.remote_field.model)
                relations[name] = [target.to_python(value) for value in fields[name]]
        return ObjectRow(self.key(pk), fields, relations=relations)

    def fill(self, rows: Sequence[ObjectRow]) -> None:
        """Make the rows' values, a column at a time.

        :raises Exception: a field's own, for a value that it refuses
        """
        bare = [row for row in rows if not row.values]
        if not bare or self.columns is None:
            return
        columns: list[Sequence[Any]] = []
        for position, (name, default, convert) in enumerate(self.columns):
            if position == self.key_position:
                columns.append([row.key[1] for row in bare])
            else:
                columns.append(
                    convert([row.fields[name] if name in row.fields else default() for row in bare])
                )
        for row, values in zip(bare, zip(*columns, strict=True), strict=True):
            row.values = values

    def natural_lookups(self, data: dict[str, Any]) -> set[type[models.Model]]:
        """Return the concrete models in which the object needs look-ups by natural keys."""
        found = set()
        if data.get("pk") is None and hasattr(self.model, "natural_key"):
            found.add(concrete(self.model))
        for name, target in self.natural_targets.items():
            value = data["fields"].get(name)
            if isinstance(value, list) and (
                name not in self.relations or any(isinstance(one, list) for one in value)
            ):
                found.add(target)
        return found


@cache
def table_of(label: str) -> Table:
    """Return the plan for a model.

    :raises UnknownModelError: no such model is installed, or its rows are in another database
    """
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        raise UnknownModelError(f"No installed app has a model {label!r}.") from None
    if router.db_for_write(model) != DEFAULT_DB_ALIAS:
        raise UnknownModelError(f"The rows of {label} are in another database than the position in the log.")
    return _table(model)


def ingested_models() -> frozenset[type[models.Model]]:
    """Return the models that ``INGEST_MODELS`` names, and their parents with tables of their own."""
    return frozenset(named(settings.INGEST_MODELS))


def require_ingested(table: Table, ingested: Set[type[models.Model]]) -> None:
    """Require that a model is ingested.

    :raises ModelNotIngestedError: the log's author isn't trusted with objects of this model
    """
    if table.concrete not in ingested:
        raise ModelNotIngestedError(
            f"MORANGO_CELERY_OPLOG['INGEST_MODELS'] doesn't name {table.model._meta.label}."
        )


def _table(model: type[models.Model]) -> Table:
    fields = own_fields(model)
    relations = concrete(model)._meta.local_many_to_many
    plain = (
        has_plain_access(model)
        and not pre_init.has_listeners(model)
        and not post_init.has_listeners(model)
        and all(type(own).__module__.startswith(_PLAIN_FIELDS) for own in fields)
        and not any(is_overshadowed(model, own) for own in fields)
    )
    natural = {
        own.name: concrete(own.remote_field.model)
        for own in (*fields, *relations)
        if own.remote_field and hasattr(own.remote_field.model._default_manager, "get_by_natural_key")
    }
    return Table(
        model,
        fields,
        tuple((own.name, own.get_default, _column(own)) for own in fields) if plain else None,
        {own.name: own for own in relations},
        natural,
        frozenset(own.name for own in (*fields, *relations) if own is not key_field(model)),
        fields.index(key_field(model)),
        _column(key_field(model)),
        all(_is_json_readable(own) for own in fields),
    )


def _is_json_readable(own: AnyField) -> bool:
    kind = own.db_type(connection) or ""
    return not dialect().has_arrays or (kind.startswith(tuple(_JSON_READABLE)) and "[" not in kind)


def _column(own: AnyField) -> Convert:
    """Return a function from JSON values of many objects to the values that raw saves would write."""
    quick = conversion(own)
    target = own.target_field if isinstance(own, models.ForeignKey) else own

    def thorough(value: Any) -> Any:
        if value is not None or target is own:
            value = target.to_python(value)
        return own.get_db_prep_save(value, connection)

    def column(values: Sequence[Any]) -> Sequence[Any]:
        if quick is not None:
            with suppress(NotFastPath):
                return quick(values)
        return [thorough(value) for value in values]

    return column


def deserialized(data: dict[str, Any]) -> DeserializedObject:
    """Deserialize an object by Django's own code. It looks natural keys up, one by one."""
    (found,) = Deserializer([data], handle_forward_references=True)
    return found


def row_of(table: Table, found: DeserializedObject, relations: Mapping[str, Iterable[Any]]) -> ObjectRow:
    """Return a deserialized object as a row, without its deferred fields."""
    values = [own.get_db_prep_save(getattr(found.object, own.attname), connection) for own in table.fields]
    return ObjectRow(
        (concrete(table.model), values[table.key_position]),
        {},
        values,
        {name: list(related) for name, related in relations.items()},
        found if found.deferred_fields else None,
    )
