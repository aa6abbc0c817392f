"""Context of a batch: its options, its carriers, and its cache of foreign keys, passed from step to step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db.models import ForeignKey
from morango.models.certificates import Filter
from morango.models.core import SyncableModel

from morango_celery.deserialization.code_edits import current
from morango_celery.deserialization.conversions import is_uuid
from morango_celery.deserialization.foreign_keys import ForeignKeyCache, References, StoreState
from morango_celery.deserialization.model_code import ModelCodeGuard
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.parsed import Instance
from morango_celery.deserialization.prefetch import LazyPrefetcher
from morango_celery.deserialization.required_rows import RequiredRows
from morango_celery.deserialization.rows import Row, read_document
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from morango_celery.deserialization.valid_references import ValidReferences
from morango_celery.errors import UnknownModelError


class BatchContext:
    """Options, carriers and known references of one batch.

    It lives as long as the batch's transaction, and no longer. `load` costs one statement for all targets of
    any number of records.
    """

    def __init__(
        self,
        profile: str,
        sync_filter: Filter | None = None,
        skip_erroring: bool = False,
        model_code: ModelCodeGuard | None = None,
        *,
        keeps_answers: bool = False,
    ) -> None:
        """
        :param sync_filter: reaches the models' ``deserialize()`` and ``clean_fields()``
        :param skip_erroring: True if records in error before this run are left out of it
        :param keeps_answers: True if `fk_cache` is kept from group to group, as long as only upserts of this
            app have written anything
        """
        self.profile = profile
        self.model_code = model_code or ModelCodeGuard()
        self.sync_filter = sync_filter
        self.skip_erroring = skip_erroring
        self.carriers: dict[str, DeserializeTask] = {}
        """All carriers of the batch, by id."""
        self._references = ValidReferences()
        self.fk_cache = ForeignKeyCache()
        """The cache that all carriers of the batch refer to."""
        self.required_rows = RequiredRows()
        """Rows that rules of the present group's records require."""
        self._keeps_answers = keeps_answers
        self._known_writes = 0
        """Number of writing statements with a known effect on the cache."""
        self._prefetcher = LazyPrefetcher()

    def load(self, carriers: list[DeserializeTask]) -> None:
        """Look up the references of parsed `carriers`, and let their models' own code follow them."""
        self._look_up(carriers)
        self._expect(carriers)
        for carrier in carriers:
            if isinstance(carrier.parsed, Instance):
                self.attach(carrier.model, carrier.parsed.app_model)

    def preload_references(self, carriers: list[DeserializeTask]) -> None:
        """Have the references in the JSON of claimed records looked up together.

        Code of their models may change a reference. It is looked up when that is known.
        """
        if self._keeps_answers:
            self.fk_cache.preload(references_in_json(carriers))
            self._known_writes = self.model_code.writes

    def _look_up(self, carriers: list[DeserializeTask]) -> None:
        wanted = References()
        instances: dict[type[SyncableModel], list[Instance]] = {}
        rows: dict[type[SyncableModel], list[Row]] = {}
        for carrier in carriers:
            parent_id = carrier.store._self_ref_fk
            if parent_id and is_uuid(parent_id):  # which the record itself may not say, or not legibly
                wanted.records.add(parent_id)
                if carrier.has_model and (tree_key := traits_of(carrier.model).tree_key):
                    wanted.add(tree_key, [parent_id])
            parsed = carrier.parsed
            if isinstance(parsed, Row):
                rows.setdefault(carrier.model, []).append(parsed)
            elif parsed is not None:
                instances.setdefault(carrier.model, []).append(parsed)
        for model, same in instances.items():
            for field in traits_of(model).foreign_keys:
                wanted.add(field, [each.reference(field) for each in same])
        for of_model in rows.values():  # column by column: most records are among them
            for position, _, field in of_model[0].plan.references:
                wanted.add(field, {row.values[position] for row in of_model})
        self.fk_cache.look_up(wanted, self.carriers)

    def reload(self, carrier: DeserializeTask, app_model: SyncableModel) -> None:
        """`load` for a carrier that was parsed again, to `app_model`: it may refer to others now."""
        self._look_up([carrier])
        self.attach(carrier.model, app_model, at_its_turn=True)

    def _expect(self, carriers: list[DeserializeTask]) -> None:
        """Tell code of models that `carriers` are yet to be written, if there is any that may follow them."""
        to_write = [carrier for carrier in carriers if carrier.has_model and not carrier.store.deleted]
        models = {carrier.model for carrier in to_write}
        self._prefetcher.forget_found_of(models)
        if any(traits_of(model).follows_relations for model in models):
            for carrier in to_write:
                self._prefetcher.expect(carrier.model, carrier.store.id)

    def reload_absent(self, carriers: list[DeserializeTask]) -> None:
        """Load again, to find rows that were absent before and may have been written meanwhile."""
        self.fk_cache.forget_absent()
        self.load(carriers)

    def attach(
        self, model: type[SyncableModel], app_model: SyncableModel, *, at_its_turn: bool = False
    ) -> None:
        """Let code of a record's model follow the relations of its instance.

        :param at_its_turn: it is about to be written. If that is by a ``save()`` of its own, its model is to
            see each row as the database has it then: it is left to Django
        """
        traits = traits_of(model)
        if traits.follows_relations and not (
            at_its_turn and traits.write_strategy is WriteStrategy.INDIVIDUAL
        ):
            self._prefetcher.track(app_model)

    def detach(self, app_model: SyncableModel) -> None:
        """Leave it to Django, from now on, to follow relations of an instance."""
        self._prefetcher.detach(app_model)

    def clean_in_tree(self, app_model: SyncableModel) -> None:
        """Validate an instance of a tree. Morango looks up its references in the app tables alone.

        :raises Exception: anything that the model raises
        """
        self._references.clean(app_model, self.row_exists, self.sync_filter)

    def written(self, carrier: DeserializeTask) -> None:
        """Note that queries find a carrier's row from now on: code of models may follow it."""
        self._prefetcher.written(carrier.store.id)

    @property
    def expects_rows(self) -> bool:
        """Return True if code of models may follow records that are yet to be written."""
        return self._prefetcher.expects

    @property
    def is_prefetching(self) -> bool:
        """Return True if models' code looks up relations, none of which is yet to be written."""
        return self._prefetcher.is_loading

    @contextmanager
    def undone_on_error(self, carriers: list[DeserializeTask]) -> Iterator[None]:
        """Show code of models, after an error inside, that no row of `carriers` was written."""
        try:
            with current().undone_on_error():
                yield
        except Exception:
            self._prefetcher.forget_found()
            self._expect(carriers)
            raise

    def before_statement(self, statement: str) -> None:
        """Note a statement that code of a model is about to execute."""
        self._prefetcher.before_statement(statement)

    def row_exists(self, field: ForeignKey[Any, Any], value: Any) -> bool:
        """Return True if the app table has the row that `field` refers to with `value`."""
        return self.fk_cache.row_exists(field, value)

    def is_valid_target(self, field: ForeignKey[Any, Any], value: str) -> bool:
        """Return True if a reference is valid at once: app row and Store row exist, neither deleted nor in
        error."""
        state = self.fk_cache.state(value)
        return (
            state is not None
            and not state.is_deleted
            and self.row_exists(field, value)
            and not self.failed_in_this_run(value)
        )

    @property
    def has_local_edits(self) -> bool:
        """Return True if any app row that was looked up carries a local edit."""
        return self.fk_cache.has_edits

    def edited_locally(self, value: Any) -> bool:
        """Return True if the app row that was looked up by `value` carries a local edit."""
        return self.fk_cache.is_edited(value)

    def state(self, store_id: Any) -> StoreState | None:
        """Return the Store's state of a loaded reference; None when the Store doesn't have it."""
        return self.fk_cache.state(store_id)

    def failed_in_this_run(self, store_id: Any) -> bool:
        """Return True if the record was tried and is in error.

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
        """Return True if a loaded reference points at a record that another batch is yet to try."""
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

    def noted_deletion(self, store_id: object) -> DeserializeOutcome | None:
        """Return the deletion that was propagated to a loaded reference since the last serialization, if
        any."""
        if not isinstance(store_id, str):
            return None
        carrier = self.carriers.get(store_id)
        return (
            carrier.propagated_deletion
            if carrier is not None and carrier.propagated_deletion
            else self.fk_cache.noted_deletion(store_id)
        )

    def upserted(self, model: type[SyncableModel], ids: Collection[str]) -> None:
        """Note that one statement has written rows, all of them."""
        if self._keeps_answers:
            self._known_writes += 1
            self.fk_cache.upserted(model, ids)

    def end_group(self) -> None:
        """Forget answers that the written group may have changed. They are looked up again when needed."""
        self._references = ValidReferences()
        self.required_rows.clear()
        if self._keeps_answers and self._known_writes == self.model_code.writes:
            self._prefetcher.forget_group()
            return
        self._keeps_answers = False
        self._prefetcher.forget()
        self.fk_cache.clear()


def references_in_json(carriers: list[DeserializeTask]) -> References:
    """Return the references of records to be saved, as far as their JSON has them as plain ids."""
    values: dict[ForeignKey[Any, Any], set[str]] = {}
    for carrier in carriers:
        with suppress(UnknownModelError):
            keys = () if carrier.store.deleted else traits_of(carrier.model).foreign_keys
            document = (read_document(carrier.store.serialized) if keys else None) or {}
            for key in keys:
                value: Any = document.get(key.attname)
                if is_uuid(value):
                    values.setdefault(key, set()).add(value)
    found = References()
    for key, of_key in values.items():
        found.add(key, of_key)
    return found
