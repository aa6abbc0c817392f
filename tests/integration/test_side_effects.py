"""Writes of models' code while a sync is applied, beside those of others, in threads and in workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from morango.models import DeletedModels, Store
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery import deserialize_from_store
from morango_celery.api import wait_for
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, create_run, start
from tests.side_effects.models import PROFILE, Echo, Item, Late, Order, Slip
from tests.side_effects.rows import all_that_is_written, build_row, one_for_each_deed
from tests.support.comparison import Database, difference, existing, read, rolled_back, run, save_all
from tests.support.workers import StartWorker

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_SECONDS = 20


def in_another_thread(call: Callable[[], Any]) -> None:
    """Wait until another thread has made the call, on a connection of its own."""

    def work() -> None:
        try:
            call()
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


@pytest.mark.needs_postgresql
def test_changes_by_others_while_records_are_deleted_are_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given two items of this server, and a deletion whose receiver takes its time
    gone = build_row("slip", "gone", moment="pre_delete", deed="delete", target="taken along", deleted=True)
    taken, deleted, saved = (
        build_row("item", name, dirty=False) for name in ("taken along", "deleted here", "saved here")
    )
    save_all([gone, taken, deleted, saved], [existing(row) for row in (gone, taken, deleted, saved)])
    reach = Slip.reach

    def meanwhile(slip: Slip, moment: str) -> None:
        in_another_thread(Item.objects.get(pk=deleted.id).delete)
        in_another_thread(Item.objects.get(pk=saved.id).save)
        reach(slip, moment)

    monkeypatch.setattr(Slip, "reach", meanwhile)

    # When another thread deletes one and saves one meanwhile
    done = deserialize_from_store(PROFILE)

    # Then that is recorded, and receivers heard of it; but not what the receiver took along
    assert (done.deleted, done.failed) == (1, 0)
    assert not Item.objects.filter(pk=taken.id).exists()
    assert set(DeletedModels.objects.values_list("id", flat=True)) == {deleted.id}
    assert Item.objects.get(pk=saved.id)._morango_dirty_bit
    assert set(Echo.objects.values_list("name", flat=True)) == {
        "post_delete deleted here",
        "pre_save saved here",
        "post_save saved here",
    }


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("each", [(), ("side_effects.Order",)], ids=["captured", "each"])
def test_changes_by_others_while_records_are_saved_are_noticed(
    monkeypatch: pytest.MonkeyPatch, settings: Any, each: tuple[str, ...]
) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": each}
    order = build_row("order", "order", moment="before save", deed="save", target="saved by the order")
    by_order, here = (build_row("item", n, dirty=False) for n in ("saved by the order", "saved here"))
    save_all([order, by_order, here], [existing(row) for row in (by_order, here)])
    reach = Order.reach

    def meanwhile(self: Order, moment: str) -> None:
        if moment == "before save":
            in_another_thread(Item.objects.get(pk=here.id).save)
        reach(self, moment)

    monkeypatch.setattr(Order, "reach", meanwhile)

    done = deserialize_from_store(PROFILE)

    assert (done.saved, done.failed) == (1, 0)
    assert Item.objects.get(pk=by_order.id).number == 1
    assert set(Echo.objects.values_list("name", flat=True)) == {"pre_save saved here", "post_save saved here"}


def records() -> tuple[list[Store], list[Store]]:
    """Return records whose code writes other rows in each way, and those of them that are deleted.

    Some of the rows that it writes have a record of their own, which comes later.
    """
    gone = one_for_each_deed("slip", to="slip ", moment="pre_delete", deleted=True)
    orders = one_for_each_deed("order", to="order ", moment="after save")
    written = all_that_is_written("slip ", dirty=False) + all_that_is_written("order ", dirty=False)
    late = [row for row in written if row.model_name == "late"]
    for row in late:
        row.dirty_bit = True
    return [*gone, *orders, *written], gone


def _assert_as_morango(carry_out: Callable[[], Run], settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": 3}
    rows, gone = records()
    app = [existing(row) for row in rows if row.model_name != "order" or not row.dirty_bit]
    theirs, ours = run(morangos, rows, app=app), Database()
    save_all(rows, app)

    done = carry_out()

    assert (done.saved, done.deleted, done.conflicted, done.failed) == (3 * len(gone), len(gone), 0, 0)
    with rolled_back():
        read(ours, PROFILE)
    for row in gone:  # deleted-records-stay-dirty
        assert (theirs.dirty.pop(row.id), ours.dirty.pop(row.id)) == (True, False)
        assert theirs.serialized[row.id].pop("dirty_bit") is not ours.serialized[row.id].pop("dirty_bit")
    assert not difference(theirs, ours)


def test_run_in_process_records_what_morango_records(settings: Any) -> None:
    _assert_as_morango(lambda: deserialize_from_store(PROFILE), settings)


def test_workers_record_what_morango_records(celery_worker_process: StartWorker, settings: Any) -> None:
    def carry_out() -> Run:
        run = create_run(PROFILE, None, serialize_first=False, session_notified=True)
        assert CeleryDispatch().start(run)
        return wait_for(run, 60)

    for _ in range(2):
        celery_worker_process(
            concurrency=1,
            DJANGO_SETTINGS_MODULE="tests.side_effects.settings",
            MORANGO_CELERY_BATCH_SIZE_RECORDS="3",
        )
    _assert_as_morango(carry_out, settings)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("deed", ["save", "update"])
def test_only_an_edit_made_here_between_two_batches_wins(deed: str, edited: bool, settings: Any) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": 1}
    # Given three batches: code of the first two writes the row whose own record is in the last
    late = build_row("late", "late", number=50)
    orders = [
        build_row("order", name, moment="after save", deed=deed, target="late")
        for name in ("first", "second")
    ]
    save_all([*orders, late], [existing(late, number=0)])
    begun = start(create_run(PROFILE, None, serialize_first=False, session_notified=True).pk).run
    for batch in open_batches(begun):
        execute_batch(batch.pk, batch.ids_sha256)
    assert Late.objects.values_list("number", "_morango_dirty_bit").get() == (2, True)

    # When somebody edits that row here before its own record comes, or nobody
    if edited:
        row = Late.objects.get()
        row.number = 7
        row.save()
    (last,) = open_batches(advance(begun.pk).run)
    execute_batch(last.pk, last.ids_sha256)

    # Then the edit wins, and what code has left doesn't
    assert list(Late.objects.values_list("number", "_morango_dirty_bit")) == [
        (7, True) if edited else (50, False)
    ]
    last.refresh_from_db()
    assert (last.saved, last.conflicted) == ((0, 1) if edited else (1, 0))
