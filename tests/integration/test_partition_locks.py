"""Locks of partitions: the same ones as Morango's, for any number of a filter's prefixes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models.certificates import Filter
from morango.sync.backends.utils import load_backend
from morango.sync.utils import lock_partitions

from morango_celery.upstream import isolated_transaction, share_partitions
from tests.support.factories import SCHOOL_ID

pytestmark = [
    pytest.mark.needs_postgresql,
    pytest.mark.django_db(transaction=True),
]

FILTERS = [
    None,
    Filter(""),
    Filter(SCHOOL_ID),
    Filter(f"{SCHOOL_ID}:units {SCHOOL_ID}:l {'ab' * 16} é"),
    Filter("\n".join(f"{number:032x}:learner" for number in range(300))),
]


def locks() -> set[tuple[Any, ...]]:
    """Return the advisory locks of this session."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT classid, objid, objsubid, mode FROM pg_locks"
            " WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
        )
        return set(cursor.fetchall())


def taken(lock: Callable[[], None]) -> set[tuple[Any, ...]]:
    with transaction.atomic():
        lock()
        return locks()


@pytest.mark.parametrize("sync_filter", FILTERS, ids=["none", "empty", "one", "three", "many"])
def test_locks_are_morangos_own(sync_filter: Filter | None) -> None:
    backend = load_backend(connection)
    shared = taken(lambda: lock_partitions(backend, sync_filter=sync_filter, shared=True))
    alone = taken(lambda: lock_partitions(backend, sync_filter=sync_filter))

    assert taken(lambda: share_partitions(sync_filter)) == shared
    with isolated_transaction(sync_filter):
        assert locks() == alone
    assert shared
    assert shared != alone


@pytest.mark.parametrize("sync_filter", FILTERS)
def test_all_locks_take_one_statement(sync_filter: Filter | None) -> None:
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        share_partitions(sync_filter)
    assert len(queries) == 1
