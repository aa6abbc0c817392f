"""Compiled fast path from JSON to table rows, for models without code of their own.

For such a model the slow path over an instance (``deserialize``, ``clean_fields``, ``save``) depends on its
fields alone. So it is worked out once per class: one small function per column. A record takes the fast path
only if all of its values are right as they are. If a field rejects a value, its error is that of the whole
model. In every other case the record takes the slow path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from django.core.exceptions import ValidationError
from django.db import models
from morango.models.core import Store, SyncableModel

from morango_celery.conf import settings
from morango_celery.deserialization.conversions import converter
from morango_celery.deserialization.equivalent import equivalent_of, field_equivalent, unused_because
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.deserialization.row_rules import Rules, compiled
from morango_celery.deserialization.traits import Traits, once_per_model, target_model, traits_of
from morango_celery.equivalents import Convert, NotFastPath
from morango_celery.reading.attributes import own_access, replaced_attributes
from morango_celery.reading.definitions import attribute_of
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

    def column_value(self, attname: str) -> Any:
        """Return the value of a column by its name."""
        return self.values[self.plan.positions[attname]]

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
    rewrites: bool = False
    """True if the converter may make another text of one that the database would take, too."""

    @property
    def name(self) -> str:
        return self.field.attname


_NO_RULES = Rules()


@dataclass(frozen=True)
class RowPlan:
    """Plan for the rows of one model."""

    columns: tuple[Column, ...]
    references: tuple[tuple[int, str, models.ForeignKey[Any, Any]], ...]
    """Position among the columns, verbose name of the target, and field, for each foreign key."""
    key_position: int
    """Position of the primary key among the columns."""
    stands_for_code: bool = False
    """True if rules stand for code of the model. Then that code words the errors of a record."""
    rules: Rules = _NO_RULES

    @cached_property
    def positions(self) -> dict[str, int]:
        """Return the positions of the columns by their names."""
        return {column.name: position for position, column in enumerate(self.columns)}

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
        broken: set[int] = set()
        for rule in self.rules.of_values:
            rule(columns, absent, broken)
        keys = columns[self.key_position]
        for index, (place, values) in enumerate(zip(places, zip(*columns, strict=True), strict=True)):
            if keys[index] != records[index].id:
                continue  # the slow path says the error of a record that names another id, or none
            if index not in rejected and index not in broken:
                found[place] = Row(self, values, index not in absent)
            elif self.stands_for_code or field_errors is None:
                continue
            elif (error := _field_errors(rejected[index])) is not None:
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
        converted = column.convert(values)
    except NotFastPath:
        converted = [_value(column, value, index, rejected) for index, value in enumerate(values)]
    if column.rewrites:
        absent.update(
            index for index, pair in enumerate(zip(values, converted, strict=True)) if pair[0] != pair[1]
        )
    return converted


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
        if hasattr(value, "resolve_expression"):
            return None  # the database has the default (since Django 5.0)
        try:
            if not (field.blank and value in field.empty_values):
                field.clean(value, None)
        except ValidationError as error:
            errors[field.name] = error.error_list
        except Exception:  # a value may make a field raise anything; it does so again on the slow path
            return None
    return ValidationError(errors) if errors else None


def row_plan(model: type[SyncableModel]) -> RowPlan | None:
    """Return the plan for a model.

    :returns: None when code of its own, or of a field, takes part, and no equivalent stands for it
    """
    plan = _decided(model).plan
    return None if plan is None or traits_of(model).individual_reasons else plan


def slow_path_reasons(model: type[SyncableModel]) -> tuple[Reason, ...]:
    """Return all reasons why a model has no plan; none if it has one."""
    return traits_of(model).individual_reasons + _decided(model).reasons


class Decision(NamedTuple):
    """Plan for the rows of a model, or the reasons why there is none."""

    plan: RowPlan | None
    reasons: tuple[Reason, ...]


def _decided(model: type[SyncableModel]) -> Decision:
    return (_plan if settings.USE_EQUIVALENTS else _plan_without_equivalents)(model)


@once_per_model
def _plan(model: type[SyncableModel]) -> Decision:
    return _made(model)


@once_per_model
def _plan_without_equivalents(model: type[SyncableModel]) -> Decision:
    return _made(model)


def _made(model: type[SyncableModel]) -> Decision:
    """Return the decision on a model by its code, and the present settings of equivalents."""
    traits = traits_of(model)
    reasons = list(_reasons_by_class(traits))
    columns = []
    references = []
    for position, field in enumerate(traits.fields):
        convert = converter(field)
        if isinstance(convert, Reason):
            reasons.append(convert)
            continue
        columns.append(Column(field, convert, field_equivalent(type(field)) is not None))
        if isinstance(field, models.ForeignKey):
            references.append((position, str(target_model(field)._meta.verbose_name), field))
    if reasons:
        return Decision(None, tuple(reasons))
    equivalent = equivalent_of(model) if traits.follows_relations else None
    key_position = traits.fields.index(model._meta.pk)
    if equivalent is None:
        return Decision(RowPlan(tuple(columns), tuple(references), key_position), ())
    plan = RowPlan(
        tuple(columns),
        tuple(references),
        key_position,
        stands_for_code=True,
        rules=compiled(equivalent, traits, [column.convert for column in columns]),
    )
    return Decision(plan, ())


def _reasons_by_class(traits: Traits) -> Iterator[Reason]:
    model = traits.model
    if (key := traits.tree_key) is not None:
        said = f"Morango deserializes it as a tree: {key.name} refers to {target_model(key)._meta.label}"
        yield Reason(Kind.TREE, said, subject=key.name)
    if traits.follows_relations and (unused := unused_because(model)) is not None:
        yield unused
    # An __init__() of its own is among the code that equivalents stand for, but never on the fast path
    if access := own_access(model):
        names = ", ".join(each.name.rpartition(".")[2] for each in access)
        yield Reason(Kind.ATTRIBUTE_ACCESS, f"it overrides {names}, by which values are set and read", access)
    for name in replaced_attributes(model):
        said = f"{name}: a property or descriptor of the class has the field's place"
        yield Reason(Kind.PROPERTY, said, (attribute_of(model, name),), name)
