"""Compiled fast path from JSON to table rows, for models without code of their own.

For such a model the slow path over an instance (``deserialize``, ``clean_fields``, ``save``) depends on its
fields alone. So it is worked out once per class: one small function per column. A record takes the fast path
only if all of its values are right as they are. If a field rejects a value, its error is that of the whole
model. In every other case the record takes the slow path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from django.core.exceptions import ValidationError
from django.db import models
from morango.models.core import Store, SyncableModel

from morango_celery.deserialization.conversions import Convert, NotFastPath, conversion
from morango_celery.deserialization.traits import WriteStrategy, once_per_model, target_model, traits_of
from morango_celery.reading.attributes import keeps_values
from morango_celery.reading.jsontext import read_json

STORE_COLUMNS: dict[str, str] = {"_morango_partition": "partition", "_morango_source_id": "source_id"}
"""Columns of an app row with the values of columns of the Store row, not of its JSON."""

Rejected: TypeAlias = "dict[int, list[tuple[models.Field[Any, Any], Any]]]"
"""Fields and values that the fast path doesn't take, in the fields' order, by the position of their
record."""


class Row(NamedTuple):
    """Values of one record's columns, as the database's driver takes them."""

    plan: RowPlan
    values: tuple[Any, ...]
    is_stored: bool
    """True if the Store row's JSON has each of them under its own name: the database can read them there."""

    def reference(self, key: models.ForeignKey[Any, Any]) -> Any:
        """Return the value of a foreign key."""
        return next(self.values[position] for position, _, each in self.plan.references if each == key)

    def column_values(self, positions: Sequence[int]) -> list[Any]:
        """Return values of columns.

        :param positions: places among the model's columns
        """
        return [self.values[position] for position in positions]


@dataclass(frozen=True)
class Column:
    """Concrete field, and the converter of its values."""

    field: models.Field[Any, Any]
    convert: Convert

    @property
    def name(self) -> str:
        return self.field.attname


@dataclass(frozen=True)
class RowPlan:
    """Plan for the rows of one model."""

    columns: tuple[Column, ...]
    references: tuple[tuple[int, str, models.ForeignKey[Any, Any]], ...]
    """Position among the columns, verbose name of the target, and field, for each foreign key."""
    key_position: int
    """Position of the primary key among the columns."""

    def rows(
        self, stores: Sequence[Store], field_errors: dict[int, ValidationError] | None = None
    ) -> list[Row | None]:
        """Return the row of each record; None if its fields reject it, or if it has to take the slow path.

        :param field_errors: filled with the error of each record that its fields reject, by position
        """
        found: list[Row | None] = [None] * len(stores)
        documents = [read_document(store.serialized) for store in stores]
        places = [place for place, document in enumerate(documents) if document is not None]
        data = [document for document in documents if document is not None]
        if not data:
            return found
        records = [stores[place] for place in places]
        absent: set[int] = set()
        rejected: Rejected = {}
        columns = [_values(column, data, records, absent, rejected) for column in self.columns]
        keys = columns[self.key_position]
        for index, (place, values) in enumerate(zip(places, zip(*columns, strict=True), strict=True)):
            if keys[index] != records[index].id:
                continue  # the slow path says the error of a record that names another id, or none
            if index not in rejected:
                found[place] = Row(self, values, index not in absent)
            elif field_errors is not None and (error := _field_errors(rejected[index])) is not None:
                field_errors[place] = error
        return found


def read_document(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a record; None where it isn't plainly one."""
    try:
        data = read_json(text)
    except (ValueError, RecursionError):
        return None
    return data if type(data) is dict else None


def _values(
    column: Column,
    data: Sequence[dict[str, Any]],
    records: Sequence[Store],
    absent: set[int],
    rejected: Rejected,
) -> Sequence[Any]:
    """Return the converted values of one column.

    :param absent: filled with the places where the JSON lacks the column
    :param rejected: filled with the values that aren't plain, by place
    """
    name = column.name
    values: Sequence[Any]
    if name == "_morango_dirty_bit":
        values = [False] * len(data)
    elif name in STORE_COLUMNS:
        values = [getattr(record, STORE_COLUMNS[name]) for record in records]
    else:
        try:
            values = [document[name] for document in data]
        except KeyError:
            absent.update(index for index, document in enumerate(data) if name not in document)
            values = [document[name] if name in document else column.field.get_default() for document in data]
    try:
        return column.convert(values)
    except NotFastPath:
        return [_value(column, value, index, rejected) for index, value in enumerate(values)]


def _value(column: Column, value: Any, index: int, rejected: Rejected) -> Any:
    try:
        return column.convert([value])[0]
    except NotFastPath:
        rejected.setdefault(index, []).append((column.field, value))
        return None


def _field_errors(rejected: Sequence[tuple[models.Field[Any, Any], Any]]) -> ValidationError | None:
    """Return the error of ``clean_fields`` if all other values are valid; None if only the slow path can
    tell."""
    errors = {}
    for field, value in rejected:
        if isinstance(field, models.ForeignKey) and value is not None:
            return None  # Morango judges references apart from the others, and later
        try:
            if not (field.blank and value in field.empty_values):
                field.clean(value, None)
        except ValidationError as error:
            errors[field.name] = error.error_list
        except Exception:  # a value may make a field raise anything; it does so again on the slow path
            return None
    return ValidationError(errors) if errors else None


@once_per_model
def row_plan(model: type[SyncableModel]) -> RowPlan | None:
    """Return the plan for a model; None when code of its own, or of a field, takes part."""
    traits = traits_of(model)
    has_own_code = traits.follows_relations or not keeps_values(model)
    if traits.write_strategy is not WriteStrategy.BULK or has_own_code or traits.in_tree:
        return None
    columns = []
    references = []
    for position, field in enumerate(traits.fields):
        convert = conversion(field)
        if convert is None:
            return None
        columns.append(Column(field, convert))
        if isinstance(field, models.ForeignKey):
            references.append((position, str(target_model(field)._meta.verbose_name), field))
    return RowPlan(tuple(columns), tuple(references), traits.fields.index(model._meta.pk))
