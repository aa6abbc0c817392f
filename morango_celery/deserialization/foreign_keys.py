"""Cache of foreign keys: answers of app tables and the Store about records that others refer to."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from django.db.models import ForeignKey, Model
from morango.models.core import DeletedModels, HardDeletedModels, SyncableModel

from morango_celery.deserialization import sql
from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.conversions import is_uuid
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.prefetch import Target, target_key, target_table
from morango_celery.deserialization.row_rules import TableColumn


@dataclass(frozen=True, slots=True)
class StoreState:
    """State of a record that others refer to, as the Store has it."""

    deleted: bool
    hard_deleted: bool
    dirty: bool
    partition: str
    model_name: str
    error: str | None

    @property
    def in_error(self) -> bool:
        return bool(self.error)

    @property
    def is_deleted(self) -> bool:
        return self.deleted or self.hard_deleted


@dataclass
class References:
    """Values that records refer to others by."""

    rows: dict[Target, set[Any]] = field(default_factory=dict)
    """Values to look for in app tables, as those hold them."""
    records: set[str] = field(default_factory=set)
    """Ids to be looked for in the Store."""

    def add(self, key: ForeignKey[Any, Any], values: Iterable[Any]) -> None:
        """Take in values of a foreign key, as records hold them."""
        texts = {value for value in values if type(value) is str}
        others = [value for value in values if type(value) is not str]  # which need not have a hash
        keys = {target_key(key, value) for value in (*texts, *others)} - {None}
        self.rows.setdefault(target_table(key), set()).update(keys)
        self.records.update(value for value in keys if isinstance(value, str))

    def __bool__(self) -> bool:
        return bool(self.records) or any(self.rows.values())


class ForeignKeyCache:
    """Answers about app rows and Store rows that one batch's records refer to, kept until `clear`."""

    def __init__(self) -> None:
        self._rows: dict[Target, dict[Any, bool]] = {}
        """True for each value that has a row, False for each that hasn't; values that were not looked up are
        absent."""
        self._edited: set[Any] = set()
        self._states: dict[str, StoreState | None] = {}
        self._noted: dict[str, DeserializeOutcome | None] = {}
        self._columns: dict[TableColumn, dict[str, Any]] = {}
        """Values of a column, by the id of their row."""
        self._absent: dict[type[Model], set[str]] = {}
        """Ids of rows that weren't there when their columns were looked up."""
        self.upserted_ids: set[str] = set()
        """Ids of rows that were written as their carriers have them."""
        self._preloaded = References()

    def preload(self, references: References) -> None:
        """Look these up too, as soon as there is anything to look up."""
        self._preloaded = references

    def look_up(self, wanted: References, claimed: Container[str]) -> None:
        """Look up the references that aren't known yet.

        :param claimed: ids of the batch's own records
        Cost: one statement for all app tables and the Store; another for each foreign key that refers to
            something else than an id, and two about references to Store rows that have no app row.
        """
        if unknown := self._unknown(wanted):
            preloaded = self._unknown(self._preloaded)
            for target, values in preloaded.rows.items():
                unknown.rows.setdefault(target, set()).update(values)
            unknown.records |= preloaded.records
            self._load(unknown)
        self._load_noted_deletions(wanted.records, claimed)

    def _unknown(self, wanted: References) -> References:
        found = {target: keys - self._rows.get(target, {}).keys() for target, keys in wanted.rows.items()}
        records = {each for each in wanted.records if each not in self._states and is_uuid(each)}
        return References({target: keys for target, keys in found.items() if keys}, records)

    def _load(self, unknown: References) -> None:
        for target, keys in unknown.rows.items():
            self._rows.setdefault(target, {}).update(dict.fromkeys(keys, False))
        self._states.update(dict.fromkeys(unknown.records))
        by_id = {target: keys for target, keys in unknown.rows.items() if is_by_id(target)}
        models = tuple(model for model, _ in by_id)
        dirty: dict[Target, set[Any]] = {}
        for place, value, is_edited, *state in sql.select_references(
            models, list(by_id.values()), unknown.records
        ):
            if place is None:
                self._states[value] = StoreState(*state)
            else:
                target = models[place], "id"
                self._rows[target][value] = True
                if is_edited:
                    dirty.setdefault(target, set()).add(value)
        for target, keys in unknown.rows.items():
            if target not in by_id:
                dirty[target] = self._load_others(target, keys)
        for (model, attname), edited in dirty.items():
            self._edited |= edited - current().made_by_code(model, edited) if attname == "id" else edited

    def _load_others(self, target: Target, values: Collection[Any]) -> set[Any]:
        """Look up rows by something else than the id of a syncable model.

        :returns: by which of the values rows are found that carry a local edit
        """
        model, attname = target
        columns = ["_morango_dirty_bit"] if issubclass(model, SyncableModel) else []
        rows: Any = model._base_manager.filter(**{f"{attname}__in": list(values)})
        dirty = set()
        for value, *edited in rows.values_list(attname, *columns):
            self._rows[target][value] = True
            if any(edited):
                dirty.add(value)
        return dirty

    def _load_noted_deletions(self, wanted: Iterable[str], claimed: Container[str]) -> None:
        absent = [
            store_id
            for store_id in wanted
            if store_id not in self._noted
            and (state := self._states.get(store_id)) is not None
            and not state.is_deleted
            and store_id not in claimed
            and not any(rows.get(store_id, False) for rows in self._rows.values())
        ]
        if absent:
            self._noted.update(dict.fromkeys(absent))
            for noted, outcome in (
                (DeletedModels, DeserializeOutcome.PROPAGATE_DELETE),
                (HardDeletedModels, DeserializeOutcome.PROPAGATE_HARD_DELETE),
            ):
                found = sql.select_by_ids(noted, "id", ["profile"], absent)
                self._noted.update((store_id, outcome) for store_id, _ in found)

    def upserted(self, model: type[SyncableModel], ids: Iterable[str]) -> None:
        """Note rows that were written, and hold no local edit now."""
        table = cast(type[Model], model._meta.concrete_model)
        for target in [target for target in self._rows if target[0] is table and not is_by_id(target)]:
            del self._rows[target]
        written = self._rows.setdefault((table, "id"), {})
        written.update(dict.fromkeys(ids, True))
        self._edited.difference_update(ids)
        self.upserted_ids.update(ids)
        self._absent.get(table, set()).difference_update(ids)
        for column, values in self._columns.items():
            if column.model is table:
                for store_id in ids:
                    values.pop(store_id, None)

    def columns(
        self, columns: Sequence[TableColumn], ids: Collection[str]
    ) -> Mapping[TableColumn, Mapping[str, Any]]:
        """Return the values of columns of one table, by the ids of their rows. Rows that aren't there are
        left out.

        :param columns: columns of ids or texts, at least one
        Cost: a statement if any isn't known yet.
        """
        known = {column: self._columns.setdefault(column, {}) for column in columns}
        model = columns[0].model
        absent = self._absent.setdefault(model, set())
        unknown = {each for each in ids if any(each not in values for values in known.values())} - absent
        if unknown:
            absent |= unknown
            for store_id, *values in sql.select_columns(model, [each.attname for each in columns], unknown):
                absent.discard(store_id)
                for column, value in zip(columns, values, strict=True):
                    known[column][store_id] = value
        return known

    def row_exists(self, key: ForeignKey[Any, Any], value: Any) -> bool:
        """Return True if the row was found that `key` refers to with `value`."""
        found = target_key(key, value)
        return found is not None and self._rows.get(target_table(key), {}).get(found, False)

    @property
    def has_edits(self) -> bool:
        """Return True if any app row that was found carries a local edit."""
        return bool(self._edited)

    def is_edited(self, value: Any) -> bool:
        """Return True if the app row that was found by `value` carries a local edit."""
        return isinstance(value, str) and value in self._edited

    def state(self, store_id: Any) -> StoreState | None:
        """Return the Store's state of a reference; None when the Store doesn't have it."""
        return self._states.get(store_id) if isinstance(store_id, str) else None

    def noted_deletion(self, store_id: str) -> DeserializeOutcome | None:
        """Return the deletion that was propagated to a reference since the last serialization, if any."""
        return self._noted.get(store_id)

    def forget_absent(self) -> None:
        """Look again for rows that weren't there."""
        for rows in self._rows.values():
            for value in [value for value, there in rows.items() if not there]:
                del rows[value]

    def clear(self) -> None:
        """Look everything up again when it is needed next, and nothing before."""
        self._rows.clear()
        self._edited.clear()
        self._states.clear()
        self._noted.clear()
        self._columns.clear()
        self._absent.clear()
        self.upserted_ids.clear()
        self._preloaded = References()


def is_by_id(target: Target) -> bool:
    model, attname = target
    return attname == "id" and issubclass(model, SyncableModel)
