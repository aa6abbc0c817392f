"""Writes of receivers and of models' own code while a sync is applied, and their records."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_save
from morango.models import Store
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery import deserialize_from_store
from tests.parity.harness import assert_same, assert_same_but_clean
from tests.side_effects.deeds import DEEDS
from tests.side_effects.models import Late, Order, Script
from tests.side_effects.rows import KINDS, all_that_is_written, build_row, one_for_each_deed
from tests.support.comparison import existing, run
from worker.school.models import Account

SAVING = {"before save", "after save"}
MOMENTS = {"pre_delete", "deserialize", "clean_fields", *SAVING}
hard_or_not = pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])


@pytest.fixture(params=[(), ("side_effects.Order",)], ids=["chosen", "each"])
def way(request: pytest.FixtureRequest, settings: Any) -> None:
    """Choose how orders are written."""
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": request.param}


@pytest.fixture
def each_late(settings: Any) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["side_effects.Late"]}


class TestReceiversOfADeletion:
    @hard_or_not
    @pytest.mark.parametrize("kind", ["slip", "order"])
    def test_writes_of_receivers_are_recorded_as_by_morango(self, kind: str, hard: bool) -> None:
        gone = one_for_each_deed(kind, moment="pre_delete", deleted=True)
        rows = [*gone, *all_that_is_written(dirty=False)]
        app = [existing(row) for row in rows]
        for row in gone:
            row.hard_deleted = hard
        result = assert_same_but_clean(rows, deleted=gone, app=app)
        assert result.deleted == set()
        assert len(result.hard_deleted) == len(KINDS) + 1

    def test_cascades_are_recorded_as_by_morango(self) -> None:
        gone = [build_row("item", f"goes {deed}", deleted=True) for deed in DEEDS]
        parts = [
            build_row("part", f"does {deed}", item=item, deed=deed, target=deed, dirty=False)
            for item, deed in zip(gone, DEEDS, strict=True)
        ]
        labels = [build_row("label", f"loses {item.source_id}", item=item, dirty=False) for item in gone]
        rows = [*gone, *parts, *labels, *all_that_is_written(dirty=False)]
        result = assert_same_but_clean(rows, deleted=gone, app=[existing(row) for row in rows])
        assert (result.app["part"], result.deleted) == ([], set())

    def test_deletions_by_receivers_cascade(self) -> None:
        gone = build_row("slip", "gone", moment="pre_delete", deed="delete", target="1", deleted=True)
        items = [build_row("item", f"{n}", next_name=f"{n + 1}", dirty=False) for n in range(1, 5)]
        part = build_row("part", "part", item=items[1], deed="delete hard", target="last", dirty=False)
        last = build_row("late", "last", dirty=False)
        rows = [gone, *items, part, last]
        result = assert_same_but_clean(rows, deleted=[gone], app=[existing(row) for row in rows])
        assert (result.app["item"], result.app["part"], result.app["late"]) == ([], [], [])
        assert (result.deleted, result.hard_deleted) == (set(), {last.id})

    @pytest.mark.parametrize("order", [1, -1])
    def test_receiver_sees_the_deletions_before_its_own(self, order: int) -> None:
        """The item goes with the last seat in its course, and there are two."""
        item = build_row("item", "maths", dirty=False)
        seats = [build_row("seat", f"maths {n}", course="maths", person=f"{n}", deleted=True) for n in "ab"]
        rows = [item, *seats[::order]]
        result = assert_same_but_clean(rows, deleted=seats, app=[existing(row) for row in rows])
        assert (result.app["seat"], result.app["item"], result.deleted) == ([], [], set())

    def test_leaving_a_course_leaves_its_teams(self) -> None:
        seat = build_row("seat", "maths", course="maths", person="ada", deleted=True)
        others = [
            build_row("seat", f"maths {team}", course="maths", team=team, person="ada", dirty=False)
            for team in ("red", "blue")
        ]
        stays = build_row("seat", "maths red bob", course="maths", team="red", person="bob", dirty=False)
        rows = [seat, *others, stays]
        result = assert_same_but_clean(rows, deleted=[seat], app=[existing(row) for row in rows])
        assert (result.ids("seat"), result.deleted) == ({stays.id}, set())

    def test_querysets_own_deletion_is_carried_out(self) -> None:
        keeper = build_row("item", "keeper", dirty=False)
        gone = [build_row("counted", f"{n}", keeper="keeper", deleted=True) for n in range(3)]
        app = [existing(row) for row in (keeper, *gone)]
        result = assert_same_but_clean([keeper, *gone], deleted=gone, app=app)
        assert [(row["number"], row["_morango_dirty_bit"]) for row in result.app["item"]] == [(3, True)]


@pytest.mark.parametrize(
    ("signal", "muted"), [(post_delete, {"pre_delete"}), (pre_save, SAVING), (post_save, SAVING)]
)
def test_another_thread_is_heard_meanwhile(
    signal: ModelSignal, muted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def hear(instance: Account, **kwargs: Any) -> None:
        heard.append(instance.username)

    def send_in_another_thread(self: Script, moment: str) -> None:
        thread = Thread(target=lambda: signal.send(Account, instance=Account(username=moment)))
        thread.start()
        thread.join()

    monkeypatch.setattr(Script, "reach", send_in_another_thread)
    gone = build_row("slip", "gone", deleted=True)
    rows, app = [gone, build_row("order", "saved")], [existing(gone)]
    signal.connect(hear, sender=Account)
    try:
        run(morangos, rows, app=app)
        assert set(heard) == MOMENTS - muted
        heard.clear()
        run(deserialize_from_store, rows, app=app)
        assert set(heard) == MOMENTS
    finally:
        signal.disconnect(hear, sender=Account)


class TestModelCode:
    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("moment", ["before save", "after save"])
    def test_writes_of_saving_are_recorded_as_by_morango(self, moment: str) -> None:
        assert_written_as_by_morango(moment)

    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("moment", ["deserialize", "clean_fields"])
    def test_writes_of_parsing_and_validation_are_recorded_as_by_morango(self, moment: str) -> None:
        assert_written_as_by_morango(moment)


def assert_written_as_by_morango(moment: str) -> None:
    written = all_that_is_written(dirty=False)
    orders = one_for_each_deed("order", moment=moment)
    result = assert_same([*orders, *written], app=[existing(row) for row in written])
    assert len(result.deleted) == 3 * (len(KINDS) + 1)
    assert len(result.hard_deleted) == len(KINDS) + 1


def bring(kind: str, written: list[Store]) -> list[Store]:
    """Let the records of a kind arrive in the same sync as the code that writes their rows."""
    arrive = [row for row in written if row.model_name == kind]
    for row in arrive:
        row.dirty_bit = True
        row.serialized = row.serialized.replace('"number": 0', '"number": 50')
    return arrive


class TestRowsWhoseRecordComesLater:
    """Rows that code leaves dirty because of the sync carry no local edit when their own record comes
    later."""

    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("moment", ["deserialize", "clean_fields", "before save", "after save"])
    def test_row_left_dirty_by_code_is_overwritten_as_by_morango(self, moment: str) -> None:
        written = all_that_is_written(dirty=False)
        app = [existing(row) for row in written]
        arrive = bring("late", written)
        orders = one_for_each_deed("order", moment=moment)
        result = assert_same([*orders, *written], app=app)
        assert {row["number"] for row in result.app["late"]} == {50}
        assert not any(row["_morango_dirty_bit"] for row in result.app["late"])
        assert result.ids("late") == {row.id for row in arrive}

    @pytest.mark.usefixtures("each_late")
    def test_row_left_dirty_by_code_is_overwritten_by_a_record_saved_alone(self) -> None:
        written = all_that_is_written(dirty=False)
        app = [existing(row) for row in written]
        bring("late", written)
        result = assert_same([*one_for_each_deed("order", moment="after save"), *written], app=app)
        assert {row["number"] for row in result.app["late"]} == {50}

    @pytest.mark.parametrize("moment", ["clean_fields", "after save"])
    def test_row_left_dirty_by_code_is_deleted_as_by_morango(self, moment: str) -> None:
        deeds = ("save", "save one field", "update", "update in bulk")
        gone = [build_row("late", deed, deleted=True) for deed in deeds]
        orders = [build_row("order", f"does {d}", moment=moment, deed=d, target=d) for d in deeds]
        result = assert_same_but_clean([*orders, *gone], deleted=gone, app=[existing(row) for row in gone])
        assert result.app["late"] == []

    def test_rows_left_by_a_deletions_receivers_are_overwritten_as_by_morango(self) -> None:
        written = all_that_is_written(dirty=False)
        gone = one_for_each_deed("slip", moment="pre_delete", deleted=True)
        app = [existing(row) for row in (*gone, *written)]
        bring("late", written)
        result = assert_same_but_clean([*gone, *written], deleted=gone, app=app)
        assert {row["number"] for row in result.app["late"]} == {50}

    def test_counts_of_several_records_are_overwritten(self) -> None:
        late = build_row("late", "counter", number=50)
        orders = [
            build_row("order", f"{n}", moment="after save", deed=deed, target="counter")
            for n, deed in enumerate(["save", "update", "update in bulk", "save", "save one field"])
        ]
        result = assert_same([*orders, late], app=[existing(late, number=0)])
        assert [(row["number"], row["_morango_dirty_bit"]) for row in result.app["late"]] == [(50, False)]

    def test_row_that_code_creates_is_overwritten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        late = build_row("late", "made by code", number=50)

        def create(order: Order, moment: str) -> None:
            if moment == "after save":
                Late.objects.get_or_create(name="made by code", defaults={"number": 7})

        monkeypatch.setattr(Order, "reach", create)
        result = assert_same([build_row("order", "order"), late])
        assert [(row["id"], row["number"]) for row in result.app["late"]] == [(late.id, 50)]

    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("deed", ["save", "update", "update in bulk"])
    def test_local_edit_that_code_writes_over_is_kept(self, deed: str) -> None:
        """local-edits: the row has both."""
        late = build_row("late", "edited", number=50)
        order = build_row("order", "order", moment="after save", deed=deed, target="edited")
        edited = existing(late, number=7, _morango_dirty_bit=True)
        ours = run(deserialize_from_store, [order, late], app=[edited])
        assert [(row["number"], row["_morango_dirty_bit"]) for row in ours.app["late"]] == [(8, True)]
        assert ours.dirty == {order.id: False, late.id: True}
