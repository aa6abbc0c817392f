"""Comparison of Morango's own function with ours, on the same Store and app rows, column by column.

Each function runs in a transaction of its own that is rolled back, so that both begin with the same
database. Deferred constraints are checked at the end, as a COMMIT would. Then Morango serializes, as
it does before the next sync, to show the consequences of the two states. Ours runs with batches of
several sizes, all of which must leave the same behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.db import connection, transaction
from django.test.utils import override_settings
from morango.models import DeletedModels, HardDeletedModels, RecordMaxCounter, Store
from morango.models.certificates import Filter
from morango.models.core import InstanceIDModel
from morango.registry import syncable_models
from morango.sync.operations import _deserialize_from_store as morangos
from morango.sync.operations import _serialize_into_store
from morango.utils import exception_path

from morango_celery.deserialization.at_once import MAX_RECORDS
from tests.support.factories import app_rows

Engine = Callable[..., Any]

BATCH_SIZES = tuple(int(size) for size in os.environ.get("PARITY_BATCH_SIZES", "1000 1").split())
"""Batch sizes in records. The worlds that are drawn at random have sizes between these, too. Large batches
of the first size are written at once, if they can be; small ones, and those of all other sizes, group by
group.
"""

_COUNTERS = {"last_saved_instance", "last_saved_counter"}


@dataclass
class Database:
    """State of the database after a deserialization."""

    app: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of each table, all columns, by id."""
    dirty: dict[str, bool] = field(default_factory=dict)
    errors: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Error text and exception path of the Store rows that have one."""
    stored: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)
    """Store rows as they are before the next serialization."""
    counters: set[tuple[Any, ...]] = field(default_factory=set, compare=False)
    """Store rows' counters as they are before it, all columns but the key."""
    deleted: set[str] = field(default_factory=set)
    hard_deleted: set[str] = field(default_factory=set)
    serialized: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Store rows after the next serialization, and whether this device was the last to save them."""
    counted: set[tuple[str, bool]] = field(default_factory=set)
    """Store ids that have a counter then, and whether it is this device's."""
    aborted: str | None = None
    """Path of the exception that ended it as a whole."""
    serialization_aborted: str | None = None
    """The same after the next serialization. That gives up on records with JSON that it can't read."""

    def ids(self, table: str) -> set[str]:
        return {row["id"] for row in self.app[table]}


class _RollBack(Exception):  # noqa: N818  (not an error)
    pass


@contextmanager
def rolled_back() -> Iterator[None]:
    """Open a transaction, or a savepoint, that is always rolled back."""
    with suppress(_RollBack), transaction.atomic():
        yield
        raise _RollBack


def run(
    engine: Engine,
    rows: Iterable[Store],
    *,
    app: Sequence[Any] = (),
    filter: Filter | None = None,  # noqa: A002
    skip_erroring: bool = False,
    times: int = 1,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    known: Database | None = None,
) -> Database:
    """Save `rows` (all of one profile) and `app`, deserialize with `engine`, and return the state after that.

    :param batch_sizes: of ours, in records: the results must not depend on them
    :param known: state after another engine, with its next serialization: equal states have equal ones
    """
    rows = list(rows)
    profile = rows[0].profile

    def left_behind(batch_size: int, *, is_first: bool = True) -> Database:
        result = Database()
        most = MAX_RECORDS if is_first and batch_size >= MAX_RECORDS else 0
        with (
            rolled_back(),
            override_settings(MORANGO_CELERY=in_batches_of(batch_size)),
            patch("morango_celery.deserialization.batch.MAX_RECORDS", most),
        ):
            save_all(rows, app)
            try:
                with transaction.atomic():
                    for _ in range(times):
                        engine(profile, skip_erroring=skip_erroring, filter=filter)
                    connection.check_constraints()
            except Exception as error:  # that Morango gives up, and why, is a result
                result.aborted = exception_path(error)
            read(result, profile, and_next=is_first, known=known)
        return result

    result = left_behind(batch_sizes[0])
    for size in () if engine is morangos else batch_sizes[1:]:
        other = left_behind(size, is_first=False)
        found = difference(result, other, left_behind=True)
        assert not found, f"not Morango, but batches of {batch_sizes[0]}; and ours, of {size}:\n{found}"
    return result


def in_batches_of(size: int) -> dict[str, Any]:
    """Return the setting with another number of records in a batch."""
    return {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": size}


def save_all(rows: Iterable[Store], app: Sequence[Any]) -> None:
    """Insert Store rows, and app rows as they are: no code of their models runs."""
    for row in rows:
        row.pk = row.id  # the ids are given; each function gets the rows anew
        row._state.adding = True
        row.save(force_insert=True)
    for instance in app:
        instance._state.adding = True
        for parent in instance._meta.concrete_model._meta.get_parent_list():
            parent_row = parent(
                **{f.attname: getattr(instance, f.attname) for f in parent._meta.concrete_fields}
            )
            parent_row.save_base(raw=True, force_insert=True)
        instance.save_base(raw=True, force_insert=True)


def read(result: Database, profile: str, *, and_next: bool = True, known: Database | None = None) -> None:
    """Fill in the state of the database, now and after the next serialization.

    :param and_next: whether that serialization is done
    :param known: state with a known next serialization, which is taken over if the states are equal
    """
    result.app = app_rows(profile)
    for row in Store.objects.values():
        result.stored[row["id"]] = row
        result.dirty[row["id"]] = row["dirty_bit"]
        if row["deserialization_error"] or row["deserialization_exception"]:
            result.errors[row["id"]] = (row["deserialization_error"], row["deserialization_exception"])
    result.deleted = set(DeletedModels.objects.values_list("id", flat=True))
    result.hard_deleted = set(HardDeletedModels.objects.values_list("id", flat=True))
    columns = [f.attname for f in RecordMaxCounter._meta.concrete_fields if not f.primary_key]
    result.counters = set(RecordMaxCounter.objects.values_list(*columns))
    if result.aborted or not and_next:
        return
    if known is not None and not difference(known, result, left_behind=True):
        result.serialized, result.counted = deepcopy(known.serialized), set(known.counted)
        result.serialization_aborted = known.serialization_aborted
        return
    try:
        with transaction.atomic():
            _serialize_into_store(profile)
    except (ValueError, TypeError, AttributeError) as error:
        result.serialization_aborted = exception_path(error)
    device = InstanceIDModel.get_or_create_current_instance()[0].id
    for values in Store.objects.values():
        kept = {name: value for name, value in values.items() if name not in _COUNTERS}
        result.serialized[values["id"]] = {**kept, "saved_here": values["last_saved_instance"] == device}
    counters = RecordMaxCounter.objects.values_list("store_model_id", "instance_id")
    result.counted = {(store_id, instance == device) for store_id, instance in counters}


def existing(store: Store, **values: Any) -> Any:
    """Return the clean app row of an earlier version of `store`, with other `values` then."""
    model = syncable_models.get_model(store.profile, store.model_name)
    synced = model.deserialize(json.loads(store.serialized))
    about = {"_morango_source_id": store.source_id, "_morango_partition": store.partition}
    for name, value in {"_morango_dirty_bit": False, **about, **values}.items():
        setattr(synced, name, value)
    return synced


_LEFT_BEHIND = ("app", "stored", "counters", "deleted", "hard_deleted", "aborted")


def difference(theirs: Database, ours: Database, *, left_behind: bool = False) -> str:
    """Return the differences between two databases, for a reader.

    :param left_behind: compare the states before the next serialization, and no more
    """
    lines = []
    names = _LEFT_BEHIND if left_behind else [f.name for f in fields(Database) if f.compare]
    for name in names:
        their_value, our_value = getattr(theirs, name), getattr(ours, name)
        if their_value != our_value:
            if isinstance(their_value, dict):
                keys = [
                    key for key in {**their_value, **our_value} if their_value.get(key) != our_value.get(key)
                ]
                their_value = {key: their_value.get(key) for key in keys}
                our_value = {key: our_value.get(key) for key in keys}
            lines.append(f"{name}\n  Morango: {their_value}\n  ours:    {our_value}")
    return "\n".join(lines)
