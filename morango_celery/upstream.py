"""Internals of Morango that this project relies on, but for names of columns and model attributes.

Checked against the release in `CHECKED`; `checks/versions.py` compares it with the installed one. When
Morango moves a name, this is the module to mend.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from morango.errors import MorangoDatabaseError
from morango.models.certificates import Filter
from morango.models.core import InstanceIDModel, SyncableModel
from morango.models.query import SyncableModelQuerySet
from morango.registry import syncable_models
from morango.sync.backends.postgres import LOCK_ALL_PARTITIONS, LOCK_PARTITION, SIGNED_MAX_INTEGER
from morango.sync.backends.utils import load_backend
from morango.utils import SETTINGS, do_import, exception_path

from morango_celery.db.dialect import dialect
from morango_celery.db.driver import is_psycopg3, repeatable_read, sqlstate_of
from morango_celery.log_context import get_logger

__all__ = [
    "CHECKED",
    "SETTINGS",
    "deserialization_log",
    "do_import",
    "exception_path",
    "is_isolation_error",
    "isolated_transaction",
    "known_instance_id",
    "morangos_function",
    "morangos_stage",
    "partition_locks",
    "profiles",
    "refuse_open_transaction",
    "registered_models",
    "report_writes",
    "self_referential_fk",
    "share_partitions",
    "within_open_transaction",
]

CHECKED: Mapping[str, str] = {"morango": "0.8.15"}
"""Release that these names were checked against, by distribution."""

PRIMARY_PARTITION_LENGTH = 32
"""Length of the part of a partition that names its facility by a hex id. Morango locks by that part."""

deserialization_log = get_logger("morango.sync.operations")
"""Logger for Morango's warnings about records it can't deserialize. Its readers shall see ours too."""

_backend = load_backend(connection)


def profiles() -> list[str]:
    """Return the profiles that any installed app registers syncable models for."""
    return sorted(syncable_models.profile_models)


def registered_models(profile: str) -> list[type[SyncableModel]]:
    """Return the profile's syncable models in Morango's order: each after the targets of its foreign keys."""
    of_store = getattr(syncable_models, "get_store_querysets", None)  # of a release to come
    if of_store is not None:
        return [model for model, _ in of_store(profile)]
    models: list[type[SyncableModel]] = syncable_models.get_models(profile)
    return models


def self_referential_fk(model: type[SyncableModel]) -> str | None:
    """Return the column name of the model's first foreign key to itself, or to a model it is a proxy of."""
    of_registry = getattr(syncable_models, "get_self_referential_fk", None)  # of a release to come
    if of_registry is not None:
        found = of_registry(model)
        return None if found is None else str(getattr(found, "attname", found))
    for field in model._meta.concrete_fields:
        if field.related_model and issubclass(model, field.related_model):
            name: str = field.attname
            return name
    return None


@contextmanager
def isolated_transaction(
    sync_filter: Filter | None, on_begin: Callable[[], None] | None = None
) -> Iterator[None]:
    """Open a transaction with one view of the data (REPEATABLE READ), alone on the filter's partitions.

    :param on_begin: called first in it, before it waits to be alone
    :raises MorangoDatabaseError: on PostgreSQL, inside an open transaction
    """
    with _repeatable_read(), transaction.atomic(savepoint=False):
        if on_begin is not None:
            on_begin()
        _lock_partitions(sync_filter, shared=False)
        yield


@contextmanager
def _repeatable_read() -> Iterator[None]:
    """Set the isolation of the next transaction as Morango does, which knows psycopg2 alone."""
    if not dialect().has_sqlstates or not is_psycopg3():
        with _backend._set_transaction_repeatable_read():
            yield
    elif SETTINGS.MORANGO_TEST_POSTGRESQL:
        yield
    elif connection.in_atomic_block:
        raise MorangoDatabaseError("Unable to set transaction isolation during a transaction")
    else:
        with repeatable_read():
            yield


def refuse_open_transaction() -> None:
    """Refuse to serialize inside an open transaction, as Morango does, but for that of a test.

    :raises MorangoDatabaseError: there is one
    """
    if connection.in_atomic_block and not SETTINGS.MORANGO_TEST_POSTGRESQL:
        raise MorangoDatabaseError("Unable to serialize during a transaction")


@contextmanager
def within_open_transaction() -> Iterator[None]:
    """Let Morango's functions, and ours, serialize in an open transaction that has one view of the data.

    Morango has a setting for it, which holds for the whole process: no other thread may serialize meanwhile.
    The instance's id may be written, and rolled back, so that what Morango has cached of it is restored, too.
    """
    allowed = SETTINGS.MORANGO_TEST_POSTGRESQL
    instance = InstanceIDModel._cached_instance
    settings.MORANGO_TEST_POSTGRESQL = True
    try:
        yield
    finally:
        settings.MORANGO_TEST_POSTGRESQL = allowed
        InstanceIDModel._cached_instance = instance


def morangos_stage(profile: str, sync_filter: Filter | None) -> None:
    """Serialize and deserialize as Morango's own operation does."""
    # Morango's API comes with it, which a worker's memory need not have
    from morango.sync.operations import _serialize_into_store

    _serialize_into_store(profile, filter=sync_filter)
    morangos_function(profile, sync_filter)


def morangos_function(profile: str, sync_filter: Filter | None) -> None:
    """Deserialize by Morango's own function."""
    from morango.sync.operations import _deserialize_from_store  # as above

    _deserialize_from_store(profile, filter=sync_filter)


def known_instance_id() -> str | None:
    """Return this instance's id as Morango has it in this process; None before anything asked for it.

    The database may have another current one by now.
    """
    instance = InstanceIDModel._cached_instance
    return None if instance is None else instance.id


def share_partitions(sync_filter: Filter | None) -> None:
    """Keep Morango's exclusive dequeue and serialize off the filter's partitions, not each other.

    Takes advisory locks that last until the transaction ends. On SQLite it does nothing.
    """
    _lock_partitions(sync_filter, shared=True)


def _lock_partitions(sync_filter: Filter | None, *, shared: bool) -> None:
    if dialect().has_advisory_locks:
        with connection.cursor() as cursor:
            cursor.execute(*partition_locks(sync_filter, shared=shared))


def partition_locks(sync_filter: Filter | None, *, shared: bool) -> tuple[str, list[Any]]:
    """Return PostgreSQL's statement for the locks that Morango takes, where it sends two for each partition.

    :returns: the SQL and its parameters
    """
    if sync_filter is None:
        return _SHARE_ALL if shared else _LOCK_ALL, [LOCK_ALL_PARTITIONS]
    # In order, so that no two wait for each other
    partitions = sorted({prefix[:PRIMARY_PARTITION_LENGTH] for prefix in sync_filter})
    keys = [binascii.crc32(partition.encode()) - SIGNED_MAX_INTEGER for partition in partitions]
    return _SHARE if shared else _LOCK, [LOCK_ALL_PARTITIONS, LOCK_PARTITION, keys]


_LOCK_ALL, _SHARE_ALL = (f"SELECT pg_advisory_xact_lock{shared}(%s)" for shared in ("", "_shared"))
_LOCK = """
    SELECT pg_advisory_xact_lock_shared(%s)
    UNION ALL SELECT pg_advisory_xact_lock(%s, key) FROM unnest(%s::int[]) AS key
"""
_SHARE = _LOCK.replace("lock(", "lock_shared(")


_ROLLED_BACK = "40"
"""Class of SQLSTATEs."""


def is_isolation_error(error: OperationalError) -> bool:
    """Return True if the database asks to run the transaction again (serialization failure, deadlock)."""
    code = sqlstate_of(error.__cause__) or sqlstate_of(error) or ""
    return code.startswith(_ROLLED_BACK) or bool(_backend._is_transaction_isolation_error(error))


def report_writes(
    before_update: Callable[[QuerySet[Any]], None],
    before_insert: Callable[[QuerySet[Any], Iterable[Any]], None],
) -> None:
    """Have querysets of syncable models announce the rows that they are about to write, where no signal does.

    :param before_update: called with the rows that an update is about to leave dirty
    :param before_insert: called with a queryset of the model, and the instances it is about to create
    Twice: safe.
    """
    if hasattr(SyncableModelQuerySet.update, "__wrapped__"):
        return
    morangos_update, djangos_bulk_create = SyncableModelQuerySet.update, SyncableModelQuerySet.bulk_create

    @wraps(morangos_update)
    def update(self: Any, update_dirty_bit_to: bool | None = True, **kwargs: Any) -> Any:
        if update_dirty_bit_to:
            before_update(self)
        return morangos_update(self, update_dirty_bit_to=update_dirty_bit_to, **kwargs)

    @wraps(djangos_bulk_create)
    def bulk_create(self: Any, objs: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        instances = list(objs)
        before_insert(self, instances)
        return djangos_bulk_create(self, instances, *args, **kwargs)

    SyncableModelQuerySet.update = update
    SyncableModelQuerySet.bulk_create = bulk_create
