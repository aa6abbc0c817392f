"""Carrier of one Store record on its way through the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from django.core.exceptions import ValidationError
from morango.models.core import Store, SyncableModel
from morango.registry import syncable_models
from typing_extensions import override

from morango_celery.deserialization.foreign_keys import ForeignKeyCache
from morango_celery.deserialization.outcome import DeserializeOutcome
from morango_celery.deserialization.parsed import Instance, Parsed
from morango_celery.errors import UnknownModelError
from morango_celery.reading.partitions import SourceTask
from morango_celery.upstream import self_referential_fk


class DeserializeTask(SourceTask):
    """Reference to one Store record, and everything that is found out about it.

    Not a Celery task: those are in ``tasks.py``.
    """

    __slots__ = (
        "_model",
        "errors",
        "fk_cache",
        "from_other_batch",
        "has_local_edit",
        "is_deferred",
        "is_retryable",
        "parent",
        "parsed",
        "propagated_deletion",
        "store",
    )

    def __init__(self, store: Store, fk_cache: ForeignKeyCache | None = None) -> None:
        """
        :param fk_cache: answers about the records that this one may refer to; one for all carriers of a batch
        """
        self.store = store
        self.fk_cache = fk_cache
        self.parsed: Parsed | None = None
        """The record's values once its JSON is parsed: a row for a model with no code of its own, else an
        instance."""
        self.errors: list[Exception] = []
        self.is_retryable = False
        """True if the error may be due to the order of records only."""
        self.parent: DeserializeTask | None = None
        """The carrier of its tree parent, when that is in the same group."""
        self.propagated_deletion: DeserializeOutcome | None = None
        """One of the two PROPAGATE outcomes, when a foreign key points at a deleted record."""
        self.from_other_batch = False
        """True if another batch has it too. That one records the error, if it can't be saved here."""
        self.is_deferred = False
        """True if code of its model wants to see rows that its group is yet to write. Such a record is parsed
        and validated when it is its turn to be written."""
        self._model: type[SyncableModel] | None = None
        self.has_local_edit = False
        """True if a local edit of the app row took precedence."""

    @property
    @override
    def id(self) -> str:
        store_id: str = self.store.id
        return store_id

    @property
    def model(self) -> type[SyncableModel]:
        """Return the syncable class that the Store's profile and model name stand for.

        :raises UnknownModelError: none does
        """
        if self._model is not None:
            return self._model
        profile, name = self.store.profile, self.store.model_name
        try:
            model: type[SyncableModel] = syncable_models.get_model(profile, name)
        except KeyError:
            raise UnknownModelError(
                f"No installed app registers a syncable model {name!r} in profile {profile!r}. "
                "Install the app (or the version of it) that does, then deserialize again."
            ) from None
        self._model = model
        return model

    @property
    def is_parsed(self) -> bool:
        return self.parsed is not None

    @property
    def app_model(self) -> SyncableModel | None:
        """Return the instance that the record was deserialized to; None where a row is all that is needed."""
        return self.parsed.app_model if isinstance(self.parsed, Instance) else None

    @property
    def has_errors(self) -> bool:
        return bool(self.errors)

    @property
    def has_model(self) -> bool:
        """Return False if the record's model isn't installed, and the carrier has the error for that."""
        return not (self.errors and any(isinstance(error, UnknownModelError) for error in self.errors))

    @property
    def outcome(self) -> DeserializeOutcome:
        """Return the outcome, as far as it is known.

        :raises AssertionError: nothing is resolved yet
        """
        if self.errors:
            return DeserializeOutcome.ERROR
        if self.store.deleted:
            return DeserializeOutcome.DELETE
        if self.propagated_deletion is not None:
            return self.propagated_deletion
        if self.parsed is None:
            raise AssertionError(f"{self!r} is not resolved yet.")
        return DeserializeOutcome.SAVE

    def self_referential_fk(self) -> str | None:
        """Return the column name of the model's foreign key to itself, if it has one."""
        return self_referential_fk(self.model)

    def set_app_model(self, app_model: SyncableModel) -> None:
        """Take the instance that the record was deserialized to."""
        self.parsed = Instance(app_model)

    def set_propagated_deletion(self, hard: bool) -> None:
        """Note that a foreign key points at a deleted record. One purged target is enough to purge.

        :param hard: True if the target was purged
        """
        if hard:
            self.propagated_deletion = DeserializeOutcome.PROPAGATE_HARD_DELETE
        elif self.propagated_deletion is None:
            self.propagated_deletion = DeserializeOutcome.PROPAGATE_DELETE

    def add_error(self, error: Exception, *, is_retryable: bool = False) -> None:
        """Note why the record can't be deserialized.

        :param is_retryable: True if other records might be all that is missing
        """
        drop_tracebacks(error)
        self.errors.append(error)
        self.is_retryable = is_retryable

    def defer(self) -> None:
        """Leave the outcome open until it is the record's turn to be written."""
        self.is_deferred = True
        self.errors.clear()
        self.propagated_deletion = None

    @override
    def __repr__(self) -> str:
        return f"<DeserializeTask {self.store.model_name} {self.store.id}>"


def drop_tracebacks(error: Exception) -> None:
    """Remove the tracebacks of an error, of its parts, and of the errors behind them.

    Their frames hold everything that the batch does, in circles that only a garbage collection would open.
    """
    parts: Iterable[Exception] = ()
    if isinstance(error, ValidationError):
        by_field = getattr(error, "error_dict", None)
        parts = error.error_list if by_field is None else chain.from_iterable(by_field.values())
    for each in (error, *parts):
        link: BaseException | None = each
        while link is not None and link.__traceback__ is not None:  # contexts may go round in a circle
            link.__traceback__ = None
            link = link.__context__
