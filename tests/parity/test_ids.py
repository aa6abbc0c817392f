"""Ids in records' JSON, in any form, and their treatment by models' code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from morango.models import Store

from morango_celery import deserialize_from_store
from tests.model_zoo.models import Step
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same
from tests.support.comparison import Database, existing, run
from tests.support.factories import build_store_row

VICTIM = "0a" * 16
MISMATCH = "morango_celery.errors.MismatchedIdError"
MODELS = ["sample", "reading", "step", "region", "lorry", "tab"]


def saying(model_name: str, /, **values: Any) -> Store:
    """Return a record with these values in its JSON, of any meaning."""
    row = build_zoo_row(model_name)
    row.serialized = json.dumps({**json.loads(row.serialized), **values})
    return row


def table(model_name: str) -> str:
    return {"region": "site"}.get(model_name, model_name)


def outcome(row: Store, victim: Store) -> Database:
    return run(deserialize_from_store, [row], app=[existing(victim, _morango_partition="elsewhere")])


@pytest.mark.parametrize(
    "named", [VICTIM, VICTIM.upper(), "0A" * 8 + "0a" * 8, f"{int(VICTIM, 16):#034x}"[:32], "\u0663" * 32]
)
@pytest.mark.parametrize("model_name", MODELS)
def test_another_id_is_refused_in_each_form_that_the_database_reads(model_name: str, named: str) -> None:
    row = saying(model_name, id=named)
    result = outcome(row, build_zoo_row(model_name, id=VICTIM))
    assert result.errors[row.id][1] == MISMATCH
    assert result.ids(table(model_name)) == {VICTIM}


@pytest.mark.parametrize(
    "named", ["0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a", "{" + VICTIM + "}", 5, True, [1], "x"]
)
@pytest.mark.parametrize("model_name", ["sample", "reading", "step", "region"])
def test_no_form_of_another_id_is_written(model_name: str, named: object) -> None:
    row = saying(model_name, id=named)
    result = outcome(row, build_zoo_row(model_name, id=VICTIM))
    assert row.id in result.errors
    assert [found["_morango_partition"] for found in result.app[table(model_name)]] == ["elsewhere"]


def test_link_to_another_row_of_a_parents_table_is_refused() -> None:
    row = saying("lorry", vehicle_ptr_id=VICTIM, plate="new")
    result = outcome(row, build_zoo_row("lorry", id=VICTIM, plate="old"))
    assert result.errors[row.id][1] == MISMATCH
    assert [found["plate"] for found in result.app["vehicle"]] == ["old"]


@pytest.mark.parametrize("model_name", ["sample", "reading", "step", "region"])
def test_id_of_its_own_in_capitals_is_its_own(model_name: str) -> None:
    row = build_zoo_row(model_name)
    row.serialized = row.serialized.replace(f'"id": "{row.id}"', f'"id": "{row.id.upper()}"')
    assert assert_same([row]).ids(table(model_name)) == {row.id}


@pytest.mark.parametrize("named", [None, "", [], {}])
@pytest.mark.parametrize("model_name", ["sample", "reading", "step", "region"])
def test_record_without_an_id_is_its_own_store_rows(model_name: str, named: object) -> None:
    absent = saying(model_name)
    data = json.loads(absent.serialized)
    del data["id"]
    absent.serialized = json.dumps({**data, "number": 1} if model_name == "step" else data)
    rows = [absent, saying(model_name, id=named)]
    assert assert_same(rows).ids(table(model_name)) == {row.id for row in rows}


def test_record_without_an_id_is_not_what_its_json_computes() -> None:
    unit = build_store_row("unit", school_id="ab" * 16, source_id="theirs", dirty=False)
    forged = build_store_row("unit", source_id="theirs")
    data = {**json.loads(forged.serialized), "school_id": "ab" * 16, "name": "forged"}
    del data["id"]
    forged.serialized = json.dumps(data)
    result = run(deserialize_from_store, [unit, forged], app=[existing(unit)])
    found = {row["id"]: (row["name"], row["_morango_partition"]) for row in result.app["unit"]}
    assert found == {unit.id: ("Unit", unit.partition), forged.id: ("forged", forged.partition)}


@pytest.mark.parametrize("model_name", ["sample", "reading", "step", "region"])
def test_keys_about_the_envelope_are_not_applied(model_name: str) -> None:
    envelope = {
        "pk": VICTIM,
        "_morango_partition": "elsewhere",
        "_morango_source_id": "theirs",
        "_morango_dirty_bit": True,
        "partition": "elsewhere",
        "profile": "school",
        "model_name": "unit",
    }
    row = saying(model_name, **envelope)
    (found,) = assert_same([row]).app[table(model_name)]
    assert (found["id"], found["_morango_partition"]) == (row.id, row.partition)
    assert (found["_morango_source_id"], found["_morango_dirty_bit"]) == (row.source_id, False)


@pytest.mark.parametrize("each", [False, True])
def test_code_of_a_model_gives_a_record_no_other_row(
    monkeypatch: pytest.MonkeyPatch, settings: Any, each: bool
) -> None:
    settings.MORANGO_CELERY = {
        **settings.MORANGO_CELERY,
        "SAVE_INDIVIDUALLY": ["model_zoo.Step"] if each else [],
    }
    save = Step.save

    def save_as_another(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.trail == "forged":
            self.id = VICTIM
        save(self, *args, **kwargs)

    monkeypatch.setattr(Step, "save", save_as_another)
    row = build_zoo_row("step", trail="forged")
    result = outcome(row, build_zoo_row("step", id=VICTIM))
    assert result.errors[row.id][1] == MISMATCH
    assert [found["trail"] for found in result.app["step"]] == ["north"]
