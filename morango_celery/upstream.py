"""Every private name of Morango 0.8.15 that this project relies on, and nothing else does.

When Morango moves one, this is the module to mend.
"""

from __future__ import annotations

import logging

from django.db import IntegrityError, OperationalError, connection
from morango.models.certificates import Filter
from morango.models.core import SyncableModel
from morango.registry import syncable_models
from morango.sync.operations import (
    DBBackend,
    LocalOperation,
    _self_referential_fk,
    _serialize_into_store,
)
from morango.sync.utils import lock_partitions
from morango.utils import SETTINGS, exception_path

__all__ = [
    "SETTINGS",
    "LocalOperation",
    "deserialization_log",
    "exception_path",
    "is_isolation_error",
    "profiles",
    "registered_models",
    "self_referential_fk",
    "serialize_into_store",
    "share_partitions",
]

SERIALIZE_ATTEMPTS = 5

deserialization_log = logging.getLogger("morango.sync.operations")
"""Where Morango warns about records it can't deserialize; who watches it shall see ours too."""


def profiles() -> list[str]:
    """The profiles that any installed app registers syncable models for."""
    return sorted(syncable_models.profile_models)


def registered_models(profile: str) -> list[type[SyncableModel]]:
    """The profile's syncable models in Morango's order: after what their foreign keys point at."""
    models: list[type[SyncableModel]] = syncable_models.get_models(profile)
    return models


def self_referential_fk(model: type[SyncableModel]) -> str | None:
    """The column name of the model's foreign key to itself, or to a model it is a proxy of."""
    name: str | None = _self_referential_fk(model)
    return name


def serialize_into_store(profile: str, sync_filter: Filter | None) -> None:
    """Morango's serialization: local edits into the Store, in a transaction of its own.

    Its snapshot is older than the lock that it then waits for. So one that had to wait for another may
    come upon rows that it can't see; the next attempt does.

    :raises MorangoDatabaseError: on PostgreSQL, inside an open transaction
    :raises OperationalError, InterfaceError: the database went away; or asks to try again, and keeps asking
    """
    for left in reversed(range(SERIALIZE_ATTEMPTS)):
        try:
            _serialize_into_store(profile, filter=sync_filter)
        except (IntegrityError, OperationalError) as error:
            came_across_another = isinstance(error, IntegrityError) or is_isolation_error(error)
            if not came_across_another or not left or connection.in_atomic_block:
                raise
        else:
            return


def share_partitions(sync_filter: Filter | None) -> None:
    """Keep Morango's exclusive dequeue and serialize off the filter's partitions, not each other.

    Takes advisory locks that last until the transaction ends. On SQLite it does nothing.
    """
    lock_partitions(DBBackend, sync_filter=sync_filter, shared=True)


def is_isolation_error(error: OperationalError) -> bool:
    """Whether the database asks to run the transaction again (serialization failure, deadlock)."""
    return bool(DBBackend._is_transaction_isolation_error(error))


def uses_postgresql() -> bool:
    """Morango knows one database, Django's default, and binds its backend to it at import."""
    return connection.vendor == "postgresql"
