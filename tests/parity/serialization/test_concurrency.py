"""Edits by others during a serialization: none is lost, neither theirs nor ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from morango.errors import MorangoDatabaseError
from morango.models import Store
from morango.models.core import DatabaseMaxCounter, InstanceIDModel, RecordMaxCounter
from morango.sync.backends.utils import load_backend
from morango.sync.operations import _serialize_into_store as morangos

from morango_celery.serialization import dirty_bits, serialize_into_store, store
from tests.parity.serialization.harness import device, edited, unit
from tests.support.comparison import save_all
from tests.support.processes import PATIENCE_SECONDS
from tests.support.sessions import (
    dirty_names,
    interrupted,
    is_noted,
    other_session,
    sessions,
    stored_name,
    until_waiting,
)
from worker.school.models import PROFILE, Unit

pytestmark = [pytest.mark.needs_postgresql, pytest.mark.django_db(transaction=True)]

EDIT = "UPDATE school_unit SET name = 'newer', _morango_dirty_bit = true WHERE id = %s"
NOTE = f"INSERT INTO morango_deletedmodels (id, profile) VALUES (%s, '{PROFILE}')"


@pytest.fixture(autouse=True)
def _real_transactions(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = False


@pytest.fixture
def rows() -> list[Any]:
    """Edited units without Store rows."""
    units = [edited(unit(name=f"unit {number}")) for number in range(5)]
    save_all([], units)
    return units


@pytest.fixture
def before_clearing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something once the Store has the rows, before they are marked as clean."""

    def arrange(interrupt: Callable[[], None]) -> None:
        monkeypatch.setattr(store, "mark_as_clean", interrupted(dirty_bits.mark_as_clean, interrupt))

    return arrange


def test_edit_that_is_committed_meanwhile_stays_to_be_serialized(
    rows: list[Any], before_clearing: Any
) -> None:
    with other_session() as execute:
        before_clearing(lambda: execute(EDIT, [rows[2].id]))
        serialize_into_store(PROFILE)
    assert dirty_names() == ["newer"]
    assert [stored_name(row) for row in rows] == [f"unit {number}" for number in range(5)]
    serialize_into_store(PROFILE)
    assert (dirty_names(), stored_name(rows[2])) == ([], "newer")


@pytest.mark.parametrize(("end", "left"), [("COMMIT", ["newer"]), ("ROLLBACK", [])])
def test_edit_that_is_not_committed_yet_is_waited_for(rows: list[Any], end: str, left: list[str]) -> None:
    with other_session() as execute, sessions() as start:
        execute("BEGIN")
        execute(EDIT, [rows[2].id])
        ours = start(serialize_into_store)
        until_waiting()
        execute(end)
        ours.result()
    assert dirty_names() == left
    assert stored_name(rows[2]) == "unit 2"
    serialize_into_store(PROFILE)
    assert (dirty_names(), stored_name(rows[2])) == ([], left[0] if left else "unit 2")


def test_edit_meanwhile_aborts_morango(rows: list[Any]) -> None:
    with other_session() as execute, sessions() as start:
        execute("BEGIN")
        execute(EDIT, [rows[2].id])
        theirs = start(morangos)
        until_waiting()
        execute("COMMIT")
        with pytest.raises(OperationalError):
            theirs.result()
    assert (Store.objects.count(), len(dirty_names())) == (0, len(rows))


def test_writer_goes_first_after_a_deadlock(rows: list[Any]) -> None:
    """Two writes of its own, the second to a row that is being marked as clean."""
    with other_session() as execute, sessions() as start:
        execute("SET deadlock_timeout = '60s'")
        execute("BEGIN")
        execute(EDIT, [rows[-1].id])
        ours = start(serialize_into_store)
        until_waiting()
        execute(EDIT, [rows[0].id])
        execute("COMMIT")
        ours.result()
    assert dirty_names() == ["newer", "newer"]
    assert [stored_name(rows[0]), stored_name(rows[-1])] == ["unit 0", "unit 4"]
    serialize_into_store(PROFILE)
    assert (dirty_names(), stored_name(rows[0]), stored_name(rows[-1])) == ([], "newer", "newer")


def test_row_that_is_deleted_meanwhile_is_stored_and_then_deleted(
    rows: list[Any], before_clearing: Any
) -> None:
    def delete() -> None:
        execute("BEGIN")
        execute("DELETE FROM school_unit WHERE id = %s", [rows[2].id])
        execute(NOTE, [rows[2].id])
        execute("COMMIT")

    with other_session() as execute:
        before_clearing(delete)
        serialize_into_store(PROFILE)
    assert not dirty_names()
    assert not Store.objects.get(id=rows[2].id).deleted
    assert is_noted(rows[2])
    serialize_into_store(PROFILE)
    assert Store.objects.get(id=rows[2].id).deleted
    assert not is_noted(rows[2])


def test_row_deleted_again_meanwhile_is_noted_again(rows: list[Any], before_clearing: Any) -> None:
    def delete() -> None:
        execute("BEGIN")
        execute("DELETE FROM school_unit WHERE id = %s", [rows[2].id])
        execute("UPDATE morango_deletedmodels SET profile = profile WHERE id = %s", [rows[2].id])
        execute("COMMIT")

    with other_session() as execute:
        execute(NOTE, [rows[2].id])
        before_clearing(delete)
        serialize_into_store(PROFILE)
        serialize_into_store(PROFILE)
    stored = Store.objects.filter(id=rows[2].id)
    assert all(row.deleted for row in stored)
    assert not is_noted(rows[2])
    assert not dirty_names()


@pytest.mark.parametrize("first", [morangos, serialize_into_store], ids=["morangos", "ours"])
def test_later_serialization_takes_the_edits_that_an_earlier_one_left(rows: list[Any], first: Any) -> None:
    with other_session() as execute, sessions() as start:
        execute("BEGIN")
        execute(EDIT, [rows[2].id])
        earlier = start(first)
        until_waiting()
        ours = start(serialize_into_store)
        until_waiting(2)
        execute("ROLLBACK")
        earlier.result()
        ours.result()
    assert not dirty_names()
    assert {row.last_saved_counter for row in Store.objects.all()} == {1}
    assert Store.objects.count() == len(rows)


@pytest.mark.parametrize("first", [morangos, serialize_into_store], ids=["morangos", "ours"])
def test_serialization_that_saw_edits_before_another_took_them_begins_again(
    rows: list[Any], first: Any
) -> None:
    saw_edits, another_waits = Event(), Event()
    isolations = []

    def before_the_lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SHOW transaction_isolation")  # takes no view of the data
            isolations.append(cursor.fetchone()[0])
        if isolations[-1] == "repeatable read":  # with the other level, it only looks for edits
            saw_edits.set()
            assert another_waits.wait(PATIENCE_SECONDS)

    with other_session() as execute, sessions() as start:
        ours = start(partial(serialize_into_store, on_begin=before_the_lock))
        assert saw_edits.wait(PATIENCE_SECONDS)
        execute("BEGIN")
        execute(EDIT, [rows[2].id])
        another = start(first)
        until_waiting()
        another_waits.set()
        until_waiting(2)
        execute("ROLLBACK")
        another.result()
        ours.result()
    assert isolations[-2:] == ["repeatable read", "read committed"]
    assert not dirty_names()
    assert Store.objects.count() == len(rows)


def test_morangos_serialization_after_ours_changes_nothing(rows: list[Any]) -> None:
    """It has a view of the data from before its wait, and gives up."""
    with other_session() as execute, sessions() as start:
        execute("BEGIN")
        execute(EDIT, [rows[2].id])
        ours = start(serialize_into_store)
        until_waiting()
        later = start(morangos)
        until_waiting(2)
        execute("ROLLBACK")
        ours.result()
        with pytest.raises(DatabaseError):
            later.result()
    assert not dirty_names()
    assert {row.last_saved_counter for row in Store.objects.all()} == {1}


@pytest.mark.parametrize("is_stored", [False, True])
def test_records_dequeued_at_the_same_time_are_merged(rows: list[Any], is_stored: bool) -> None:
    synced = unit(id=rows[2].id, dirty=True, name="from afar")
    if is_stored:
        unit(id=rows[2].id, name="earlier").save(force_insert=True)
    with sessions() as start:
        with transaction.atomic():
            load_backend(transaction.get_connection())._lock_all_partitions(shared=False)
            synced.save(force_insert=not is_stored)
            ours = start(serialize_into_store)
            until_waiting()
        ours.result()
    merged = Store.objects.get(id=rows[2].id)
    assert (merged.conflicting_serialized_data, merged.dirty_bit) == (synced.serialized + "\n", False)
    assert stored_name(rows[2]) == "unit 2"
    assert not dirty_names()


LOCK = "SELECT pg_advisory_xact_lock(1)"
"""Morango's, of all partitions."""


@pytest.fixture
def clean_rows(rows: list[Any]) -> list[Any]:
    """Units that are stored already, by the first serialization."""
    serialize_into_store(PROFILE)
    return rows


def counters() -> tuple[int, list[int]]:
    """Return the instance's counter, and those that are noted for prefixes."""
    noted = DatabaseMaxCounter.objects.values_list("counter", flat=True)
    return InstanceIDModel.objects.get().counter, list(noted)


@contextmanager
def after_the_look(interrupt: Callable[[], None]) -> Iterator[None]:
    """Do something else between the look for edits, which finds none, and the commit."""
    left = [interrupt]

    def execute(call: Callable[..., Any], sql: str, *args: Any) -> Any:
        result = call(sql, *args)
        if "WITH edited" in sql and left:
            left.pop()()
        return result

    with connection.execute_wrapper(execute):
        yield
    assert not left


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_edit_after_the_look_is_left_to_the_next_serialization(clean_rows: list[Any], end: str) -> None:
    row = clean_rows[2]
    with other_session() as execute:

        def edit() -> None:
            execute("BEGIN")
            execute(EDIT, [row.id])
            execute(end)

        with after_the_look(edit):
            serialize_into_store(PROFILE)
    is_edited = end == "COMMIT"
    assert (dirty_names(), stored_name(row)) == (["newer"] if is_edited else [], "unit 2")
    assert counters() == (2, [2])
    serialize_into_store(PROFILE)
    assert (dirty_names(), stored_name(row)) == ([], "newer" if is_edited else "unit 2")
    assert counters() == (3, [3])
    assert RecordMaxCounter.objects.get(store_model_id=row.id).counter == (3 if is_edited else 1)


def test_deletion_after_the_look_is_left_to_the_next_serialization(clean_rows: list[Any]) -> None:
    row = clean_rows[2]
    with other_session() as execute, after_the_look(lambda: execute(NOTE, [row.id])):
        serialize_into_store(PROFILE)
    assert (is_noted(row), Store.objects.get(id=row.id).deleted) == (True, False)
    serialize_into_store(PROFILE)
    assert (is_noted(row), Store.objects.get(id=row.id).deleted) == (False, True)


def test_edit_while_the_lock_is_waited_for_is_serialized(clean_rows: list[Any]) -> None:
    """The look has a view of the data that is younger than the lock."""
    with other_session() as holder, other_session() as execute, sessions() as start:
        holder("BEGIN")
        holder(LOCK)
        ours = start(serialize_into_store)
        until_waiting()
        execute(EDIT, [clean_rows[2].id])
        holder("COMMIT")
        ours.result()
    assert (dirty_names(), stored_name(clean_rows[2])) == ([], "newer")
    assert counters() == (2, [2])


def test_edit_that_is_not_committed_yet_is_no_edit(clean_rows: list[Any]) -> None:
    """Nor is it waited for: no row is touched."""
    with other_session() as execute:
        execute("BEGIN")
        execute(EDIT, [clean_rows[2].id])
        serialize_into_store(PROFILE)
        execute("COMMIT")
    assert (dirty_names(), stored_name(clean_rows[2])) == (["newer"], "unit 2")
    assert counters() == (2, [2])


def test_counter_that_another_raises_at_the_same_time_is_raised_again(clean_rows: list[Any]) -> None:
    with other_session() as execute, sessions() as start:
        execute("BEGIN")
        execute("UPDATE morango_instanceidmodel SET counter = counter + 1")
        ours = start(serialize_into_store)
        until_waiting()
        execute("COMMIT")
        ours.result()
    assert counters() == (3, [3])


def test_serializations_of_nothing_at_the_same_time_have_a_counter_each(clean_rows: list[Any]) -> None:
    """None has to try again, though each waits for the others: so there is no limit to their number."""
    number = 2 * store.ATTEMPTS
    with other_session() as holder, sessions() as start:
        holder("BEGIN")
        holder(LOCK)
        ours = [start(serialize_into_store) for _ in range(number)]
        until_waiting(number)
        holder("COMMIT")
        for each in ours:
            each.result()
    assert counters() == (1 + number, [1 + number])


def test_open_transaction_is_refused_though_nothing_was_edited(clean_rows: list[Any]) -> None:
    with pytest.raises(MorangoDatabaseError), transaction.atomic():
        serialize_into_store(PROFILE)
    assert counters() == (1, [1])


@pytest.mark.parametrize("is_edited", [False, True])
def test_connection_that_is_lost_at_any_statement_leaves_all_or_nothing(
    rows: list[Any], is_edited: bool
) -> None:
    device() if is_edited else serialize_into_store(PROFILE)
    number, done = 0, False
    while not done:
        before = (Store.objects.count(), dirty_names(), counters()[1])
        done = not is_lost_at(number)
        number += 1
        if not done:
            assert (Store.objects.count(), dirty_names(), counters()[1]) == before
    assert number > 8 if is_edited else number == 2
    assert (Store.objects.count(), dirty_names()) == (len(rows), [])
    raised = counters()[0]
    assert counters() == (raised, [raised])


def is_lost_at(number: int) -> bool:
    """Serialize, and lose the session right before its n-th statement; return False if it has fewer."""
    left = iter(range(number))

    def execute(call: Callable[..., Any], sql: str, *args: Any) -> Any:
        if next(left, None) is None:
            pid = connection.connection.info.backend_pid
            with other_session() as kill:
                kill("SELECT pg_terminate_backend(%s, 60000)", [pid])
        return call(sql, *args)

    try:
        with connection.execute_wrapper(execute):
            serialize_into_store(PROFILE)
    except (OperationalError, InterfaceError):
        connection.close()
        return True
    return False


def test_open_transaction_is_refused(rows: list[Any]) -> None:
    with pytest.raises(MorangoDatabaseError), transaction.atomic():
        serialize_into_store(PROFILE)
    assert len(dirty_names()) == len(rows)


def test_failure_leaves_nothing_but_the_instances_counter_raised(
    rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unit, "serialize", lambda self: 1 / 0)
    for engine in (serialize_into_store, morangos):
        with pytest.raises(ZeroDivisionError):
            engine(PROFILE)
    assert InstanceIDModel.objects.get().counter == 2
    assert (Store.objects.count(), len(dirty_names())) == (0, len(rows))
