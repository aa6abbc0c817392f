"""The carrier: one Store record on its way through the pipeline."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from morango.models.core import Store, SyncableModel
from morango.registry import syncable_models

from morango_celery.errors import UnknownModelError

if TYPE_CHECKING:
    from morango_celery.deserialization.foreign_keys import ForeignKeyCache
    from morango_celery.deserialization.rows import Row


class DeserializeOutcome(enum.Enum):
    """What becomes of a record."""

    SAVE = "save"
    """Its values are written to the app table."""

    DELETE = "delete"
    """It was deleted elsewhere: so is the app row."""

    PROPAGATE_DELETE = "propagate_delete"
    """It refers to a deleted record: noted in DeletedModels, not saved."""

    PROPAGATE_HARD_DELETE = "propagate_hard_delete"
    """It refers to a purged record: noted in HardDeletedModels too."""

    ERROR = "error"
    """It stays dirty in the Store, with its error."""


class DeserializeTask:
    """Holds a reference to one Store instance and everything that is found out about it.

    Not a Celery task: those are in ``tasks.py``.
    """

    __slots__ = (
        "_model",
        "app_model",
        "errors",
        "fk_cache",
        "from_other_batch",
        "has_local_edit",
        "is_retryable",
        "looked_early",
        "parent",
        "propagated_deletion",
        "row",
        "store",
    )

    def __init__(self, store: Store, fk_cache: ForeignKeyCache | None = None) -> None:
        self.store = store
        self.fk_cache = fk_cache
        self.app_model: SyncableModel | None = None
        """The deserialized, unsaved instance, once parsed; None where `row` is all that is needed."""
        self.row: Row | None = None
        """The column values themselves, for a model whose code is all Morango's own."""
        self.errors: list[Exception] = []
        self.is_retryable = False
        """Whether the error may be due to the order of records only."""
        self.parent: DeserializeTask | None = None
        """The carrier of its tree parent, when that is in the same group."""
        self.propagated_deletion: DeserializeOutcome | None = None
        """One of the two PROPAGATE outcomes, when a foreign key points at a deleted record."""
        self.from_other_batch = False
        """Whether another batch has it too, which will say what was wrong if it can't be saved here."""
        self.looked_early = False
        """Whether code of its model wants to see rows that its group is yet to write: it is parsed and judged
        when it is its turn to be written."""
        self._model: type[SyncableModel] | None = None
        self.has_local_edit = False
        """Whether a local edit of the app row took precedence."""

    @property
    def model(self) -> type[SyncableModel]:
        """The syncable class that the Store's profile and model name stand for.

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
        return self.app_model is not None or self.row is not None

    @property
    def has_errors(self) -> bool:
        return bool(self.errors)

    @property
    def has_model(self) -> bool:
        """Whether the record's model is installed; one whose isn't has the error already, or gets it."""
        return not (self.errors and any(isinstance(error, UnknownModelError) for error in self.errors))

    @property
    def outcome(self) -> DeserializeOutcome:
        if self.errors:
            return DeserializeOutcome.ERROR
        if self.store.deleted:
            return DeserializeOutcome.DELETE
        return self.propagated_deletion or DeserializeOutcome.SAVE

    def add_error(self, error: Exception, *, is_retryable: bool = False) -> None:
        """Record why the record can't be deserialized.

        :param is_retryable: when other records might be all that is missing
        """
        let_go_of_frames(error)
        self.errors.append(error)
        self.is_retryable = is_retryable

    def put_off(self) -> None:
        """Leave it open what becomes of the record until it is its turn to be written."""
        self.looked_early = True
        self.errors.clear()
        self.propagated_deletion = None

    def __repr__(self) -> str:
        return f"<DeserializeTask {self.store.model_name} {self.store.id} {self.outcome.name}>"


def let_go_of_frames(error: Exception) -> None:
    """Forget where an error came through: those frames hold all that the batch does, in circles that only a
    collection would open."""
    parts: Iterable[Exception] = ()
    if isinstance(error, ValidationError):
        by_field = getattr(error, "error_dict", None)
        parts = error.error_list if by_field is None else chain.from_iterable(by_field.values())
    for each in (error, *parts):
        link: BaseException | None = each
        while link is not None and link.__traceback__ is not None:  # contexts may go round in a circle
            link.__traceback__ = None
            link = link.__context__
