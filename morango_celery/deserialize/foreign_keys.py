"""The per-batch foreign key cache: what records refer to, looked up once per target table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.models import ForeignKey
from morango.models.certificates import Filter
from morango.models.core import DeletedModels, HardDeletedModels, Store, SyncableModel

from morango_celery.deserialize import sql
from morango_celery.deserialize.code_edits import current
from morango_celery.deserialize.conversions import is_uuid
from morango_celery.deserialize.own_code import OwnCode
from morango_celery.deserialize.relations import Relations, Target, target_key, target_table
from morango_celery.deserialize.rows import row_plan
from morango_celery.deserialize.task import DeserializeTask, Outcome
from morango_celery.deserialize.traits import Way, traits_of
from morango_celery.deserialize.valid_references import ValidReferences


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the Store says about a record that others refer to."""

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


_STATE_COLUMNS = (
    "deleted",
    "hard_deleted",
    "dirty_bit",
    "partition",
    "model_name",
    "deserialization_error",
)


class ForeignKeyCache:
    """Answers, for the records of one batch, whether what they refer to is there.

    Loading costs one query per target table for the app rows and one for the Store rows, whatever
    the number of records. Lives as long as the batch's transaction, and no longer.
    """

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        skip_erroring: bool = False,
        own_code: OwnCode | None = None,
    ) -> None:
        self.profile = profile
        self.own_code = own_code or OwnCode()
        self.sync_filter = sync_filter
        self.skip_erroring = skip_erroring
        self.carriers: dict[str, DeserializeTask] = {}
        """All carriers of the batch, by id."""
        self._references = ValidReferences()
        self._rows: dict[Target, dict[Any, bool]] = {}
        """Of each value that was looked up, whether there is such a row."""
        self._edited: set[str] = set()
        self._states: dict[str, StoreState | None] = {}
        self._noted: dict[str, Outcome] = {}
        self._relations = Relations()

    def load(self, carriers: list[DeserializeTask]) -> None:
        """Look up what the parsed `carriers` refer to, and let their models' own code find it."""
        self._look_up(carriers)
        self._expect(carriers)
        for carrier in carriers:
            if carrier.app_model is not None:
                self.attach(carrier)

    def _look_up(self, carriers: list[DeserializeTask]) -> None:
        wanted: dict[Target, set[Any]] = {}
        references: set[str] = set()
        parsed: dict[type[SyncableModel], list[DeserializeTask]] = {}
        rows: dict[type[SyncableModel], list[tuple[Any, ...]]] = {}
        for carrier in carriers:
            parent_id = carrier.store._self_ref_fk
            if parent_id and is_uuid(parent_id):  # which the record itself may not say, or not legibly
                references.add(parent_id)
                if carrier.has_model and (tree_key := traits_of(carrier.model).tree_key):
                    wanted.setdefault(target_table(tree_key), set()).add(parent_id)
            if carrier.row is not None:
                rows.setdefault(carrier.model, []).append(carrier.row.values)
            if carrier.app_model is not None:
                parsed.setdefault(carrier.model, []).append(carrier)
        for model, same in parsed.items():
            for field in traits_of(model).foreign_keys:
                keys = _keys(field, [getattr(carrier.app_model, field.attname) for carrier in same])
                wanted.setdefault(target_table(field), set()).update(keys)
                references.update(key for key in keys if isinstance(key, str))
        for model, of_model in rows.items():
            plan = row_plan(model)
            assert plan is not None
            for position, _, field in plan.references:
                values = {row[position] for row in of_model} - {None}
                wanted.setdefault(target_table(field), set()).update(values)
                references |= values
        for target, keys in wanted.items():
            self._load_rows(target, keys)
        self._load_states(references)
        self._load_noted_deletions()

    def load_again(self, carrier: DeserializeTask) -> None:
        """`load` for a carrier that was parsed again: it may refer to others now."""
        fields = traits_of(carrier.model).foreign_keys
        keys = {
            (target_table(f), key)
            for f in fields
            for key in _keys(f, [getattr(carrier.app_model, f.attname)])
        }
        if any(key not in self._rows.get(target, {}) for target, key in keys):
            self._look_up([carrier])
        self.attach(carrier, at_its_turn=True)

    def _expect(self, carriers: list[DeserializeTask]) -> None:
        """Tell code of models that `carriers` are yet to be written, if there is any that may follow them."""
        to_write = [carrier for carrier in carriers if carrier.has_model and not carrier.store.deleted]
        models = {carrier.model for carrier in to_write}
        if any(traits_of(model).follows_relations for model in models):
            for carrier in to_write:
                self._relations.expect(carrier.model, carrier.store.id)

    def look_again(self, carriers: list[DeserializeTask]) -> None:
        """`load`, for what wasn't there before, but may have been written meanwhile."""
        for rows in self._rows.values():
            for value in [value for value, there in rows.items() if not there]:
                del rows[value]
        self.load(carriers)

    def _load_rows(self, target: Target, values: set[Any]) -> None:
        model, attname = target
        known = self._rows.setdefault(target, {})
        unknown = values - known.keys()
        if not unknown:
            return
        known.update(dict.fromkeys(unknown, False))
        columns = ["_morango_dirty_bit"] if issubclass(model, SyncableModel) else []
        found: Iterable[tuple[Any, ...]]
        if columns and attname == "id":
            found = sql.look_up(model, attname, columns, unknown)
        else:
            rows = model._base_manager.filter(**{f"{attname}__in": list(unknown)})
            found = rows.values_list(attname, *columns)
        dirty = set()
        for value, *edited in found:
            known[value] = True
            if any(edited):
                dirty.add(value)
        if dirty:
            self._edited |= dirty - current().among(model, dirty) if attname == "id" else dirty

    def _load_states(self, references: set[str]) -> None:
        unknown = [r for r in references if r not in self._states and is_uuid(r)]
        if not unknown:
            return
        self._states.update(dict.fromkeys(unknown))
        for store_id, *columns in sql.look_up(Store, "id", _STATE_COLUMNS, unknown):
            self._states[store_id] = StoreState(*columns)

    def _load_noted_deletions(self) -> None:
        there = {value for rows in self._rows.values() for value, is_there in rows.items() if is_there}
        absent = [
            store_id
            for store_id, state in self._states.items()
            if state is not None
            and not state.is_deleted
            and store_id not in there
            and store_id not in self.carriers
        ]
        if absent:
            noted = DeletedModels.objects.filter(id__in=absent).values_list("id", flat=True)
            self._noted.update(dict.fromkeys(noted, Outcome.PROPAGATE_DELETE))
            noted = HardDeletedModels.objects.filter(id__in=absent).values_list("id", flat=True)
            self._noted.update(dict.fromkeys(noted, Outcome.PROPAGATE_HARD_DELETE))

    def attach(self, carrier: DeserializeTask, *, at_its_turn: bool = False) -> None:
        """Let code of the carrier's model follow relations.

        :param at_its_turn: it is about to be written. If that is by a ``save()`` of its own, its model is to
            see each row as the database has it then: it is left to Django
        """
        app_model = carrier.app_model
        assert app_model is not None
        traits = traits_of(carrier.model)
        if traits.follows_relations and not (at_its_turn and traits.way is Way.EACH):
            self._relations.bring(app_model)

    def let_go(self, carrier: DeserializeTask) -> None:
        """Leave it to Django, from now on, what code of the carrier's model finds as it follows relations."""
        assert carrier.app_model is not None
        self._relations.let_go(carrier.app_model)

    def clean_in_tree(self, app_model: SyncableModel) -> None:
        """Validate an instance of a tree, whose references Morango looks up in the app tables alone.

        :raises Exception: whatever the model raises
        """
        self._references.clean(app_model, self.row_exists, self.sync_filter)

    def written(self, carrier: DeserializeTask) -> None:
        """Take note that queries find a carrier's row from now on: code of models may follow it."""
        self._relations.written(carrier.store.id)

    @property
    def expects_rows(self) -> bool:
        """Return True if code of models may follow records that are yet to be written."""
        return self._relations.expects

    @property
    def follows_what_is_written(self) -> bool:
        """Return True if models' code looks up relations, none of which is yet to be written."""
        return self._relations.is_loading

    @contextmanager
    def undone_on_error(self, carriers: list[DeserializeTask]) -> Iterator[None]:
        """Let code of models see, after an error inside, that what was written of `carriers` isn't there."""
        try:
            with current().undone_on_error():
                yield
        except Exception:
            self._relations.forget_found()
            self._expect(carriers)
            raise

    def heed(self, statement: str) -> None:
        """Take note of what code of a model is about to write."""
        self._relations.heed(statement)

    def row_exists(self, field: ForeignKey[Any, Any], value: Any) -> bool:
        """Whether the app table has the row that `field` refers to with `value`."""
        key = target_key(field, value)
        return key is not None and self._rows.get(target_table(field), {}).get(key, False)

    def is_plainly_there(self, field: ForeignKey[Any, Any], value: str) -> bool:
        """Whether a reference needs no second thought: app row and Store row exist, and neither is
        deleted nor in error."""
        state = self._states.get(value)
        return (
            state is not None
            and not state.is_deleted
            and self.row_exists(field, value)
            and not self.failed_in_this_run(value)
        )

    @property
    def knows_edits(self) -> bool:
        """Whether any app row that was looked up carries a local edit."""
        return bool(self._edited)

    def edited_locally(self, value: Any) -> bool:
        """Whether the app row that was looked up by `value` carries a local edit."""
        return isinstance(value, str) and value in self._edited

    def state(self, store_id: Any) -> StoreState | None:
        """The Store's state of a loaded reference; None when the Store doesn't have it."""
        return self._states.get(store_id) if isinstance(store_id, str) else None

    def failed_in_this_run(self, store_id: Any) -> bool:
        """Whether the record was tried and is in error.

        The errors of earlier runs are cleared when a run starts, except with ``skip_erroring``:
        there, nothing tells old errors from new ones, and only this batch's own are known.
        """
        carrier = self.carriers.get(store_id) if isinstance(store_id, str) else None
        if carrier is not None:
            return carrier.has_errors
        state = self.state(store_id)
        return (
            state is not None
            and state.dirty
            and state.in_error
            and not self.skip_erroring
            and self.in_filter(state)
        )

    def is_waiting(self, store_id: str) -> bool:
        """Whether a loaded reference points at a record that is yet to be tried, by another batch."""
        state = self.state(store_id)
        return (
            state is not None
            and state.dirty
            and not state.in_error
            and not state.is_deleted
            and store_id not in self.carriers
            and self.in_filter(state)
        )

    def in_filter(self, state: StoreState) -> bool:
        return self.sync_filter is None or state.partition in self.sync_filter

    def noted_deletion(self, store_id: object) -> Outcome | None:
        """The deletion that was spread to a loaded reference since the last serialization, if any."""
        if not isinstance(store_id, str):
            return None
        carrier = self.carriers.get(store_id)
        return carrier.spread if carrier is not None and carrier.spread else self._noted.get(store_id)

    def forget(self) -> None:
        """Rows were written or deleted: look everything up again when it is needed next."""
        self._relations.forget()
        self._rows.clear()
        self._edited.clear()
        self._states.clear()
        self._noted.clear()
        self._references = ValidReferences()


def _keys(field: ForeignKey[Any, Any], values: Sequence[Any]) -> set[Any]:
    """The rows that a foreign key refers to with these values."""
    texts = {value for value in values if type(value) is str}
    others = [value for value in values if type(value) is not str]  # as what may not even have a hash
    return {target_key(field, value) for value in (*texts, *others)} - {None}
