"""Rules of declared equivalents, compiled for the rows of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from django.db.models import Model

from morango_celery.deserialization.traits import Traits, target_model
from morango_celery.equivalents import (
    Between,
    Computed,
    Convert,
    Equivalent,
    NotFastPath,
    RowExists,
    SameAs,
    TargetIn,
)

Record = TypeVar("Record")

RowRule = Callable[[list[Sequence[Any]], set[int], set[int]], None]
"""Rule about the values of one record alone. It is called with the columns, the places of the records with
other values than those of their JSON, and the places of those that the fast path doesn't take; it may change
all three."""


class TableColumn(NamedTuple):
    """Column of a table: concrete model, and attname."""

    model: type[Model]
    attname: str


Certain: TypeAlias = "Mapping[TableColumn, Mapping[str, str]]"
"""Texts in columns of rows that records refer to, by the ids of these rows. Values that may be others when
the record is saved are left out."""


class Target(NamedTuple):
    """Column of the row that a foreign key refers to."""

    key_position: int
    """Position of the foreign key in a row."""
    column: TableColumn

    def text(self, values: Sequence[Any], certain: Certain) -> str | None:
        """Return the text that a record finds there; None if it isn't certain.

        :param values: row of the record
        """
        return certain[self.column].get(values[self.key_position])


@dataclass(frozen=True)
class TargetRule:
    """Rule that a column of the row that a foreign key refers to equals one of the record, or is one of some
    texts."""

    target: Target
    position: int | None
    """Position of the equal column in a row."""
    texts: frozenset[str] = frozenset()

    def breaking(self, rows: Mapping[Record, Sequence[Any]], certain: Certain) -> Iterator[Record]:
        """Yield the records that break the rule, or may.

        :param rows: values of each record
        """
        key_position, found = self.target.key_position, certain[self.target.column]
        position, texts = self.position, self.texts
        if position is None:
            return (each for each, row in rows.items() if found.get(row[key_position]) not in texts)
        return (
            each
            for each, row in rows.items()
            if (text := found.get(row[key_position])) is None or text != row[position]
        )


class KeyColumns(NamedTuple):
    """Columns that rows of a model's table are found by."""

    model: type[Model]
    names: tuple[str, ...]
    """Attnames of the columns."""
    positions: tuple[int, ...]
    """Positions of the columns in a row."""

    def key(self, values: Sequence[Any]) -> RowKey:
        """Return the key that a row has."""
        return RowKey(self, tuple(values[position] for position in self.positions))


class RowKey(NamedTuple):
    """Values that a row of a model's table is found by."""

    columns: KeyColumns
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ExistenceRule:
    """Rule that the table has a row with some values."""

    columns: KeyColumns
    sources: tuple[int | Target, ...]
    """Positions of the values in a row, or the columns of other rows that have them."""
    when: TargetRule | None

    def key(self, values: Sequence[Any], certain: Certain) -> RowKey | None:
        """Return the key of the row that a record needs; None if it needs none.

        :param values: row of the record
        :raises NotFastPath: that isn't certain
        """
        if self.when is not None:
            condition = self.when.target.text(values, certain)
            if condition is None:
                raise NotFastPath
            if condition not in self.when.texts:
                return None
        texts = [
            source.text(values, certain) if isinstance(source, Target) else values[source]
            for source in self.sources
        ]
        if None in texts:
            raise NotFastPath
        return RowKey(self.columns, tuple(texts))


@dataclass(frozen=True)
class Rules:
    """Rules for the rows of one model, by the knowledge that they take."""

    of_values: tuple[RowRule, ...] = ()
    of_targets: tuple[TargetRule, ...] = ()
    of_existence: tuple[ExistenceRule, ...] = ()

    @cached_property
    def targets(self) -> dict[TableColumn, set[int]]:
        """Return the columns of other rows that the rules look at, with the positions of the foreign keys
        that refer to these."""
        conditions = [rule.when for rule in self.of_existence if rule.when is not None]
        sources = [source for rule in self.of_existence for source in rule.sources]
        found: dict[TableColumn, set[int]] = {}
        for target in (*(rule.target for rule in (*self.of_targets, *conditions)), *sources):
            if isinstance(target, Target):
                found.setdefault(target.column, set()).add(target.key_position)
        return found


def compiled(equivalent: Equivalent, traits: Traits, converters: Sequence[Convert]) -> Rules:
    """Return the rules of an equivalent for the rows of a model.

    :param converters: those of the model's columns
    """
    places = {field.attname: position for position, field in enumerate(traits.fields)}
    return Rules(
        tuple(_of_values(equivalent, places, converters)),
        tuple(_of_targets(equivalent, traits, places)),
        tuple(_of_existence(equivalent, traits, places)),
    )


def _of_values(
    equivalent: Equivalent, places: Mapping[str, int], converters: Sequence[Convert]
) -> Iterator[RowRule]:
    for rule in equivalent.rules:
        if isinstance(rule, Between):
            yield _between(places[rule.column], rule.low, rule.high)
        elif isinstance(rule, Computed):
            position = places[rule.column]
            sources = [places[name] for name in rule.sources]
            yield _computed(position, sources, rule.function, converters[position])


def _of_targets(equivalent: Equivalent, traits: Traits, places: Mapping[str, int]) -> Iterator[TargetRule]:
    for rule in equivalent.rules:
        if isinstance(rule, SameAs):
            yield TargetRule(_target(traits, rule.foreign_key, rule.column), places[rule.column])
        elif isinstance(rule, TargetIn):
            yield _one_of(rule, traits)


def _of_existence(
    equivalent: Equivalent, traits: Traits, places: Mapping[str, int]
) -> Iterator[ExistenceRule]:
    model = cast(type[Model], traits.model._meta.concrete_model)
    for rule in equivalent.rules:
        if isinstance(rule, RowExists):
            names, sources = zip(*rule.columns, strict=True)
            yield ExistenceRule(
                KeyColumns(model, names, tuple(places[name] for name in names)),
                tuple(_source(traits, source, places) for source in sources),
                None if rule.when is None else _one_of(rule.when, traits),
            )


def _source(traits: Traits, source: str, places: Mapping[str, int]) -> int | Target:
    foreign_key, dot, column = source.partition(".")
    return _target(traits, foreign_key, column) if dot else places[source]


def _one_of(rule: TargetIn, traits: Traits) -> TargetRule:
    return TargetRule(_target(traits, rule.foreign_key, rule.column), None, frozenset(rule.values))


def _target(traits: Traits, foreign_key: str, column: str) -> Target:
    key = next(key for key in traits.foreign_keys if key.name == foreign_key)
    model = cast(type[Model], target_model(key)._meta.concrete_model)
    return Target(traits.fields.index(key), TableColumn(model, column))


def _between(position: int, low: float, high: float) -> RowRule:
    def require(columns: list[Sequence[Any]], rewritten: set[int], broken: set[int]) -> None:
        broken.update(
            index
            for index, value in enumerate(columns[position])
            if value is None or not low <= value <= high
        )

    return require


def _computed(
    position: int, sources: Sequence[int], function: Callable[..., Any], convert: Convert
) -> RowRule:
    def compute(columns: list[Sequence[Any]], rewritten: set[int], broken: set[int]) -> None:
        given = columns[position]
        values = []
        for index, arguments in enumerate(zip(*(columns[source] for source in sources), strict=True)):
            try:
                (value,) = convert([function(*arguments)])
            except Exception:  # the model's own code decides what that means for the record
                broken.add(index)
                value = None
            values.append(value)
            if value != given[index]:
                rewritten.add(index)
        columns[position] = values

    return compute


def certain_text(values: Sequence[Any]) -> str | None:
    """Return the text that all of some values are; None if they differ, or aren't texts."""
    if not values or any(type(value) is not str for value in values):
        return None
    first: str = values[0]
    return first if all(value == first for value in values) else None
