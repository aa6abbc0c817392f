"""Tables and columns by names that aren't those of their fields: a value comes to the column of its field."""

from __future__ import annotations

import datetime
import json
from itertools import pairwise
from typing import Any

import pytest
from django.db import IntegrityError, connection
from morango.models import Store
from morango.models.core import SyncableModel

from morango_celery import deserialize_from_store
from morango_celery.deserialization import deserialize_batch, one_by_one
from morango_celery.deserialization.constraint_checks import strict_check
from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.saving import write_alone
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.serialization import serialize_into_store
from tests.model_zoo.models import PROFILE
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.parity.serialization import harness as serialization
from tests.support.comparison import existing, rolled_back, run, save_all
from tests.support.factories import app_rows

MODELS = ("cabinet", "drawer", "label", "folder", "sign", "crate")
"""Models that derive from `Misnamed`."""
LABELS = ("Cabinet", "Drawer", "Label", "Folder", "Sign", "Crate", "Tab")
LONG = "το_όνομα_αυτού_του_πεδίου_είναι_πολύ_μακρύ"


@pytest.fixture(params=[(), LABELS], ids=["chosen", "each"])
def _way(request: pytest.FixtureRequest, settings: Any) -> None:
    labels = [f"model_zoo.{label}" for label in request.param]
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": labels}


def coded(code: str) -> Store:
    """Return a cabinet that others refer to by another value than its id."""
    row = build_zoo_row("cabinet")
    row.serialized = row.serialized.replace(f'"code": "{row.id}"', f'"code": "{code}"')
    return row


def one_of_each(**values: Any) -> dict[str, Store]:
    """Return a record of each misnamed model, with its targets."""
    cabinet = build_zoo_row("cabinet", **values)
    drawer = build_zoo_row("drawer", cabinet=cabinet, **values)
    return {
        "cabinet": cabinet,
        "drawer": drawer,
        "label": build_zoo_row("label", drawer=drawer, cabinet=cabinet, printed_for=cabinet, **values),
        "folder": build_zoo_row("folder", drawer=drawer, **values),
        "sign": build_zoo_row("sign", **values),
        "crate": build_zoo_row("crate", cabinet=cabinet, **values),
    }


@pytest.mark.usefixtures("_way")
def test_each_value_comes_to_the_column_of_its_field() -> None:
    rows = one_of_each()
    result = assert_same(rows.values())
    for model in MODELS:
        (found,) = result.app[model]
        assert (found["id"], found["heading"], found["title"], found["count"], found[LONG]) == (
            *(rows[model].id, "Heading", "Title", 3, "long"),
        )


@pytest.mark.usefixtures("_way")
def test_each_column_of_a_row_that_is_there_is_overwritten() -> None:
    rows = one_of_each()
    older = {"heading": None, "title": "Old", "count": None, "mixedCase": False, "spaced": None, LONG: "old"}
    app = [existing(row, **older) for row in rows.values()]
    assert not assert_same(rows.values(), app=app).errors


def test_null_is_written_where_the_record_says_so_and_nowhere_else() -> None:
    rows = one_of_each(heading=None, count=None, bare=None)
    result = assert_same(rows.values(), app=[existing(row, heading="old") for row in rows.values()])
    for model in MODELS:
        (found,) = result.app[model]
        assert (found["heading"], found["title"], found["bare"]) == (None, "Title", None)


@pytest.mark.parametrize("name", ["bare", "heading", "spaced", LONG])
def test_key_that_is_called_as_the_column_brings_nothing(name: str) -> None:
    rows = one_of_each()
    for row in rows.values():
        data = json.loads(row.serialized)
        del data[name]
        row.serialized = json.dumps({**data, LONG[:34]: "cut", 'it\'s a 5 \\ "quoted" {name}: $1': 7})
    result = assert_same(rows.values())
    for model in MODELS:
        assert [found[name] for found in result.app[model]] == [None if name != LONG else ""]


@pytest.mark.usefixtures("_way")
def test_no_value_is_lost_or_exchanged_in_silence() -> None:
    cabinet = build_zoo_row("cabinet")
    rows = [cabinet, build_zoo_row("tab", cabinet=cabinet), build_zoo_row("tab", width_mm=None)]
    result = assert_same(rows)
    found = {row["id"]: [*row.values()][4:-2] for row in result.app["tab"]}
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert found == {
        rows[1].id: ["Front", "Back", 12, moment, cabinet.id],
        rows[2].id: ["Front", "Back", None, moment, None],
    }


def test_misnamed_rows_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: set[str] = set()

    def noting(carrier: DeserializeTask, app_model: SyncableModel, context: BatchContext) -> bool:
        alone.add(carrier.store.model_name)
        return write_alone(carrier, app_model, context)

    monkeypatch.setattr(one_by_one, "write_alone", noting)
    rows = [*one_of_each().values(), build_zoo_row("tab")]
    assert not run(deserialize_from_store, rows).errors
    assert alone == {"sign", "crate"}  # its paths are no others


def test_wrong_value_is_the_error_of_its_record() -> None:
    sound, broken = one_of_each(), one_of_each(heading="x" * 51)
    label = build_zoo_row("label", cabinet=sound["cabinet"], number="seven")
    result = assert_same([*sound.values(), *broken.values(), label])
    assert result.errors.keys() == {label.id, *(row.id for row in broken.values())}
    assert all("'heading'" in str(result.errors[row.id][0]) for row in broken.values())
    assert "'number'" in str(result.errors[label.id][0])


@pytest.mark.usefixtures("_way")
def test_local_edit_wins() -> None:
    rows = one_of_each()
    app = [existing(row, title="mine", _morango_dirty_bit=True) for row in rows.values()]
    result = run(deserialize_from_store, rows.values(), app=app)
    assert {model: result.app[model][0]["title"] for model in MODELS} == dict.fromkeys(MODELS, "mine")
    assert all(result.dirty.values())


def test_row_that_equals_the_record_holds_no_edit() -> None:
    rows = one_of_each()
    app = [existing(row, _morango_dirty_bit=True) for row in rows.values()]
    del rows["folder"], rows["sign"]  # its saved values differ from the record's
    result = assert_same(rows.values(), app=[row for row in app if row.pk in {r.id for r in rows.values()}])
    assert not any(result.dirty.values())


def test_values_that_others_have_are_found() -> None:
    rows = one_of_each()
    taken = [
        coded(rows["cabinet"].id),
        build_zoo_row("label", cabinet=rows["cabinet"], number=1),
        build_zoo_row("label", cabinet=rows["cabinet"], number=2, drawer=rows["drawer"]),
    ]
    result = assert_same([*rows.values(), *taken], app=[existing(row) for row in rows.values()])
    assert result.errors.keys() == {row.id for row in taken}


@pytest.mark.parametrize("hard", [False, True])
def test_records_that_refer_to_a_deleted_one_go_with_it(hard: bool) -> None:
    rows = one_of_each()
    app = [existing(row) for row in rows.values()]
    rows["drawer"].deleted, rows["drawer"].hard_deleted = True, hard
    propagated = [rows["label"], rows["folder"]]
    result = assert_same_but_clean(rows.values(), propagated=propagated, app=app)
    assert result.deleted == {row.id for row in propagated}
    assert (result.app["drawer"], result.app["label"], result.app["folder"]) == ([], [], [])


def test_records_of_every_model_are_deleted() -> None:
    rows = one_of_each()
    app = [existing(row) for row in rows.values()]
    for row in rows.values():
        row.deleted = True
    theirs, ours = both(rows.values(), app=app)
    assert ours.app == theirs.app
    assert not any(ours.app[model] for model in (*MODELS, "box"))


def test_tree_is_saved_parents_first() -> None:
    cabinet = build_zoo_row("cabinet")
    top = build_zoo_row("drawer", cabinet=cabinet)
    rows = [cabinet, top]
    for _ in range(3):
        rows.append(build_zoo_row("drawer", cabinet=cabinet, parent_id=rows[-1].id))
    result = assert_same([rows[0], *reversed(rows[1:])])
    assert {row["id"]: row["parent_id"] for row in result.app["drawer"]} == {
        top.id: None,
        **{child.id: parent.id for parent, child in pairwise(rows[1:])},
    }


CODE = "c0de" * 8


def test_tree_may_refer_to_a_target_by_another_key() -> None:
    cabinet = coded(CODE)
    drawer = build_zoo_row("drawer", cabinet_id=CODE)
    lost = build_zoo_row("drawer", cabinet_id="ab" * 16)
    result = assert_same([drawer, cabinet, lost])
    assert result.ids("drawer") == {drawer.id}
    assert result.errors.keys() == {lost.id}


def test_record_may_refer_to_a_target_by_another_key() -> None:
    """Morango looks for the value among the ids of the Store (targets-outside-the-store)."""
    cabinet = coded(CODE)
    label = build_zoo_row("label", cabinet_id=CODE)
    lost = build_zoo_row("label", cabinet_id="ab" * 16)
    theirs, ours = both([label, cabinet, lost])
    assert theirs.errors.keys() == {label.id, lost.id}
    assert ours.errors.keys() == {lost.id}
    assert ours.errors[lost.id] == theirs.errors[lost.id]
    assert [row["cabinet_id"] for row in ours.app["label"]] == [CODE]


VALUES: dict[str, list[Any]] = {
    "color": ["red", "green", None, "blue", 5, "", []],
    "notes": ['{"a": 1}', "[]", "null", None, "no JSON", {"a": 1}, 5],
    "price": ["0.01", None, "-7", 12, "x", ""],
    "closed_at": ["2026-01-02 03:04:05(UTC)", None, "2026-01-02 03:04:05(Asia/Kolkata)", "soon"],
}


def test_fields_make_what_they_will_of_values() -> None:
    rows = one_of_each()
    folders = [
        build_zoo_row("folder", drawer=rows["drawer"], **{name: value})
        for name, values in VALUES.items()
        for value in values
    ]
    result = assert_same([rows["cabinet"], rows["drawer"], *folders])
    assert 0 < len(result.errors) < len(folders)


def edited() -> list[Any]:
    rows = [*one_of_each().values(), build_zoo_row("tab")]
    return [existing(row, _morango_dirty_bit=True, title="ü%s'\"") for row in rows]


def test_edits_become_records() -> None:
    app = edited()
    result = serialization.assert_same(app, profile=PROFILE)
    assert result.store.keys() == {row.pk for row in app}
    for row in app:
        data = json.loads(result.store[row.pk]["serialized"])
        if "title" in data:
            assert (data["title"], data["heading"], data["order"]) == ("ü%s'\"", "Heading", "first")
            assert "Key" not in data
        else:
            assert (data["front"], data["cast1"], "width" in data) == ("Front", "ca" * 16, False)


def test_edits_of_records_become_records() -> None:
    rows = list(one_of_each().values())
    app = [existing(row, _morango_dirty_bit=True, title="mine") for row in rows]
    result = serialization.assert_same(app, rows, profile=PROFILE)
    for row in rows:
        data = json.loads(result.store[row.id]["serialized"])
        assert (data["title"], data["Key"]) == ("mine", "fe" * 16)  # unknown keys stay


def test_records_serialized_here_are_deserialized_elsewhere() -> None:
    # Given records made of edits
    with rolled_back():
        save_all([], edited())
        before = {model: app_rows(PROFILE)[model] for model in MODELS}
        serialize_into_store(PROFILE)
        records = list(Store.objects.all())
    for record in records:
        record.dirty_bit = True
        record._self_ref_fk = ""  # of crates, which Morango says are their own parents

    # When another device gets them, it has the same rows
    result = assert_same(records)
    about = {"_morango_dirty_bit": False, "order": None}  # the folder's own code has changed that
    for model, rows in before.items():
        assert [{**row, **about} for row in result.app[model]] == [{**row, **about} for row in rows]


def test_reference_that_points_nowhere_is_named() -> None:
    said = f"drawer.Cabinet Id refers to '{CODE}', which model_zoo_cabinet doesn't have."
    with rolled_back():
        check = strict_check()
        save_all([], [existing(build_zoo_row("drawer", cabinet_id=CODE))])
        with pytest.raises(IntegrityError, match=said if connection.vendor == "sqlite" else "Cabinet Id"):
            check()


FIRST, SECOND = "00" * 16, "ff" * 16


def one_batch(rows: list[Store]) -> dict[str, str]:
    """Return the errors that one batch leaves behind; no other pass finds out more."""
    save_all(rows, [])
    deserialize_batch(PROFILE, [row.id for row in rows])
    return dict(Store.objects.exclude(deserialization_error=None).values_list("id", "deserialization_error"))


def test_null_in_a_tree_is_judged_by_each_foreign_key_to_a_table() -> None:
    """Morango's verdict depends on the order, where a record with an allowed null comes first."""
    cabinet = build_zoo_row("cabinet")
    allowed = build_zoo_row("drawer", id=FIRST, cabinet=cabinet, lent_to_id=None)
    refused = build_zoo_row("drawer", id=SECOND, cabinet_id=None, lent_to=cabinet)
    errors = one_batch([cabinet, allowed, refused])
    assert errors == {refused.id: "{'cabinet': ['This field cannot be null.']}"}


def test_reference_in_a_tree_is_looked_up_by_each_foreign_keys_own_column() -> None:
    # Given one cabinet with an id that is no cabinet's code
    cabinet = coded(CODE)
    drawer = build_zoo_row("drawer", id=FIRST, cabinet_id=CODE, lent_to=cabinet)
    lost = build_zoo_row("drawer", id=SECOND, cabinet_id=cabinet.id)
    errors = one_batch([cabinet, drawer, lost])
    assert f"cabinet instance with code '{cabinet.id}' " in errors.pop(lost.id)
    assert errors == {}
