"""Hypothesis strategies for whole databases: app rows with any values, and their Store rows."""

from __future__ import annotations

import datetime
import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from hypothesis import strategies as st
from morango.models import DeletedModels, HardDeletedModels, Store, SyncableModel, UUIDField
from morango.models.certificates import Filter
from morango.registry import syncable_models

from morango_celery.db.dialect import dialect
from tests.model_zoo.fields import CentsField, Color, ColorField, NotesField, WordsField, ZonedTimeField
from tests.parity.serialization.harness import database_counter, record_counter
from tests.support.factories import SAVED_BY

PARTITIONS = ("aa:1", "aa:2", "AA:1", "aab", "b_", "bb", "%", "é:1")
MANY = [f"z{number}" for number in range(100)]
"""Prefixes of nothing."""
PREFIXES = ("aa", "AA", "aa:1", "aab", "b_", "b", "é", "zz", "")
SOURCES = ("plain", "tab\tand \\N", "“ä”")
UNKNOWN = "99" * 16
RELATED = ["a1" * 16, "b2" * 16]
"""Ids for references: that there are no such rows doesn't matter here."""

_TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5
) | st.sampled_from(["", "x", "\\", "\t\n\r", '"', "%s", "\u2028", "🦊"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6) | _TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)
_STORED = _JSON | st.sampled_from(["\ud800", "\0", float("nan"), float("inf"), 10**30])


def _is_within_calendar(time: datetime.datetime) -> bool:
    """Return True if it is in a year that has a number in every zone."""
    return 1 < time.year < 9999


_ZONES = [ZoneInfo("UTC"), ZoneInfo("Africa/Nairobi")]
_TYPES: dict[type[models.Field[Any, Any]], Callable[[Any], st.SearchStrategy[Any]]] = {
    WordsField: lambda _: st.lists(st.text(string.ascii_letters, min_size=1, max_size=3), max_size=3),
    NotesField: lambda _: _JSON,
    ColorField: lambda _: st.sampled_from(Color),
    CentsField: lambda _: st.decimals(-999999, 999999, places=2),
    ZonedTimeField: lambda _: st.datetimes(timezones=st.sampled_from(_ZONES)).filter(_is_within_calendar),
    models.GenericIPAddressField: lambda _: st.ip_addresses().map(str),
    models.JSONField: lambda _: _JSON,
    models.UUIDField: lambda _: st.sampled_from(RELATED),
    UUIDField: lambda _: st.sampled_from(RELATED),
    models.CharField: lambda f: _TEXTS.map(lambda text: text[: f.max_length]),
    models.TextField: lambda _: _TEXTS,
    models.BooleanField: lambda _: st.booleans(),
    models.PositiveIntegerField: lambda _: st.integers(0, 2**31 - 1),
    models.PositiveSmallIntegerField: lambda _: st.integers(0, 2**15 - 1),
    models.PositiveBigIntegerField: lambda _: st.integers(0, 2**63 - 1),
    models.SmallIntegerField: lambda _: st.integers(-(2**15), 2**15 - 1),
    models.BigIntegerField: lambda _: st.integers(-(2**63), 2**63 - 1),
    models.IntegerField: lambda _: st.integers(-(2**31), 2**31 - 1),
    models.FloatField: lambda _: st.floats(allow_nan=not dialect().runs_in_process),
    models.DecimalField: lambda f: st.decimals(-999999, 999999, places=f.decimal_places),
    models.DateTimeField: lambda _: st.datetimes(timezones=st.just(datetime.UTC)),
    models.DateField: lambda _: st.dates(),
    models.TimeField: lambda _: st.times(),
    models.DurationField: lambda _: st.timedeltas(
        datetime.timedelta(days=-9999), datetime.timedelta(days=9999)
    ),
}
"""Models in the order of their deletion: some derive from others."""


@dataclass(frozen=True)
class Database:
    """Start of a serialization, and the arguments of its call."""

    profile: str
    app: Sequence[SyncableModel]
    stored: Sequence[Store]
    others: Sequence[models.Model] = field(repr=False)
    filter: Filter | None
    times: int


@st.composite
def databases(draw: st.DrawFn, profile: str) -> Database:
    """Rows of the profile's models, any number of them dirty, on either side or on both."""
    app: list[SyncableModel] = []
    stored: list[Store] = []
    others: list[models.Model] = [
        database_counter(prefix, 0) for prefix in draw(st.lists(st.sampled_from(PREFIXES), unique=True))
    ]
    ids = [UNKNOWN]
    for kind, model in enumerate(syncable_models.get_models(profile)):
        for number in range(draw(st.integers(0, 3))):
            row = draw(_app_rows(model, number, f"{kind:x}{number}".ljust(32, "7")))
            ids.append(row.pk)
            if draw(st.sampled_from([True, True, True, False])):
                app.append(row)
            if draw(st.booleans()):
                stored.append(draw(_store_rows(model, row)))
                others += draw(_counters(stored[-1]))
    for note in (DeletedModels, HardDeletedModels):
        for record_id in draw(st.lists(st.sampled_from(ids), max_size=2, unique=True)):
            others.append(note(id=record_id, profile=draw(st.sampled_from([profile, profile, "other"]))))
    prefixes = draw(st.lists(st.sampled_from(PREFIXES), max_size=3))
    prefixes += draw(st.sampled_from([[], MANY])) if prefixes else []
    return Database(
        profile,
        app,
        stored,
        others,
        Filter("\n".join(prefixes)) if prefixes else None,
        draw(st.integers(1, 2)),
    )


@st.composite
def _app_rows(draw: st.DrawFn, model: type[SyncableModel], number: int, row_id: str) -> SyncableModel:
    values = {f.attname: draw(_values(f)) for f in model._meta.concrete_fields}
    unique = _unique_values(model, number)
    values.update({name: value for name, value in unique.items() if values[name] is not None})
    row: SyncableModel = model(**values)
    row.pk = row.id = row_id
    row._morango_partition = draw(st.sampled_from(PARTITIONS))
    row._morango_source_id = draw(st.sampled_from(SOURCES))
    row._morango_dirty_bit = draw(st.sampled_from([True, True, True, False]))
    return row


def _values(column: models.Field[Any, Any]) -> st.SearchStrategy[Any]:
    kind = column.target_field if isinstance(column, models.ForeignKey) else column
    strategy = next(make(column) for of, make in _TYPES.items() if isinstance(kind, of))
    if column.attname == "kind":
        strategy = st.sampled_from(["region", "town", "island"])  # which managers go by
    return st.none() | strategy if column.null else strategy


def _unique_values(model: type[SyncableModel], number: int) -> Mapping[str, Any]:
    """Return values that no other row of the model has, for its fields that ask for them."""
    constraints = (each for each in model._meta.constraints if isinstance(each, models.UniqueConstraint))
    groups = (*model._meta.unique_together, *(each.fields for each in constraints))
    together = {name for names in groups for name in names}
    values: dict[str, Any] = {}
    for column in model._meta.concrete_fields:
        is_key = isinstance(column, models.ForeignKey)
        if column.primary_key or not (column.unique or (column.name in together and not is_key)):
            continue
        if is_key or isinstance(column, UUIDField):
            values[column.attname] = f"{number}" * 32
        else:
            values[column.attname] = number if isinstance(column, models.IntegerField) else f"“{number}”"
    return values


@st.composite
def _store_rows(draw: st.DrawFn, model: type[SyncableModel], row: SyncableModel) -> Store:
    """Draw a Store row that the same app row made, or another version, or another device."""
    data: dict[Any, Any] = row.serialize()
    keys = draw(st.permutations(list(data)) | st.just(list(data)))
    data = {key: data[key] for key in keys}
    for key in draw(st.lists(st.sampled_from(keys), max_size=2)):
        data.pop(key, None)
    data.update(draw(st.dictionaries(st.sampled_from(["a", "ä", "%s", "id", "\ud800"]), _STORED, max_size=3)))
    if draw(st.sampled_from([False, False, False, True])):
        data = {}
    texts = st.sampled_from(["", '{"a": 1}\n', '{"b": "ä"}\n{"b": "\\\\"}\n'])
    return Store(
        id=row.pk,
        profile=row.morango_profile,
        model_name=model.morango_model_name,
        partition=row._morango_partition,
        source_id=row._morango_source_id,
        serialized=json.dumps(data, cls=DjangoJSONEncoder, indent=draw(st.sampled_from([None, 1]))),
        conflicting_serialized_data=draw(texts),
        dirty_bit=draw(st.booleans()),
        deleted=draw(st.booleans()),
        hard_deleted=draw(st.booleans()),
        deserialization_error=draw(st.sampled_from([None, "", "old"])),
        deserialization_exception=draw(st.sampled_from([None, "old.Error"])),
        last_transfer_session_id=draw(st.sampled_from([None, UNKNOWN])),
        last_saved_instance=SAVED_BY,
        last_saved_counter=draw(st.integers(1, 9)),
        _self_ref_fk=draw(st.sampled_from(["", *RELATED])),
    )


def _counters(row: Store) -> st.SearchStrategy[list[models.Model]]:
    ours, theirs = record_counter(row, 0), record_counter(row, 7, SAVED_BY)
    return st.sampled_from([[], [ours], [theirs], [ours, theirs]])
