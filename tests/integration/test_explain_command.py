"""`manage.py explain_models`: its table, its paragraphs, and its JSON."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.db import connection

from morango_celery.explanation import explain
from morango_celery.upstream import profiles
from tests.model_zoo.models import PROFILE as MODEL_ZOO


def output(*arguments: str) -> str:
    found = StringIO()
    call_command("explain_models", *arguments, stdout=found)
    return found.getvalue()


def parsed(*arguments: str) -> Any:
    return json.loads(output(*arguments, "--json"))


def test_all_profiles_are_explained_in_foreign_key_order() -> None:
    found = parsed()
    assert (found["version"], found["database"]) == (1, connection.vendor)
    assert [each["profile"] for each in found["profiles"]] == profiles()
    for profile in found["profiles"]:
        place = {each["model"]: number for number, each in enumerate(profile["models"])}
        assert list(place) == [each.label for each in explain(profile["profile"])]
        for each in profile["models"]:
            for needed in each["depends_on"]:
                before = place[needed["model"]] < place[each["model"]]
                assert before or needed["model"] in each["cycle"]


def test_json_has_the_way_of_a_model_and_why() -> None:
    (profile,) = parsed("--profile", MODEL_ZOO)["profiles"]
    person = next(each for each in profile["models"] if each["model"] == "model_zoo.Person")
    (reason,) = person.pop("reasons")
    code = reason.pop("code")
    assert person == {
        "model": "model_zoo.Person",
        "name": "person",
        "stage": 3,
        "depends_on": [
            {"model": f"model_zoo.{name}", "by": ["home", "morango_model_dependencies"]}
            for name in ("Region", "Town")
        ],
        "fast_path": False,
        "parsed": "own deserialize()",
        "validated": "own clean_fields()",
        "written": "bulk",
        "exclusive": False,
        "exclusive_reasons": [],
        "advice": [
            "If this code only compares columns, requires a range or fills in a value: declare an "
            "Equivalent(overrides=('clean_fields', 'deserialize'), ...)."
        ],
        "equivalent": {"state": "none declared", "problem": None, "fields": {}},
        "statements": {
            "small_batch": 7,
            "large_batch": 9,
            "per_record": 0,
            "per_record_of_large_batch": 0,
            "exact": False,
            "further": [
                "each query of its own code, and one that writes the waiting rows before it",
                "one for each relation that its own code follows, for all records together",
            ],
        },
        "tree": None,
        "cycle": [],
        "cyclic_keys": [],
    }
    assert reason == {
        "kind": "no equivalent",
        "subject": "clean_fields, deserialize",
        "text": "it overrides clean_fields, deserialize, and no equivalent is declared",
    }
    assert [(each["name"], each["overrides"], each["file"]) for each in code] == [
        (
            f"tests.model_zoo.models.Person.{name}",
            f"morango.models.core.SyncableModel.{name}",
            "tests/model_zoo/models.py",
        )
        for name in ("clean_fields", "deserialize")
    ]
    assert all(isinstance(each["line"], int) for each in code)


def test_table_has_each_model_and_paragraphs_those_off_the_fast_path() -> None:
    text = output("--profile", MODEL_ZOO)
    explained = explain(MODEL_ZOO)
    fast = [each for each in explained if each.is_on_fast_path]
    lines = text.splitlines()
    assert lines[0] == f"Profile {MODEL_ZOO}: {len(explained)} models, {len(fast)} of them on the fast path."
    assert [line.split()[1] for line in lines[3 : 3 + len(explained)]] == [each.label for each in explained]
    paragraphs = text.split("\n\n")[3:-1]
    named = [label for each in paragraphs for label in each.splitlines()[0].rpartition(":")[0].split(", ")]
    assert sorted(named) == sorted(each.label for each in explained if not each.is_on_fast_path)
    (step,) = [each for each in paragraphs if each.startswith("model_zoo.Step:")]
    assert step.startswith(
        "model_zoo.Step: captured save\n"
        "  why         it overrides save, and no equivalent is declared\n"
        "              - tests/model_zoo/models.py:"
    )
    assert "Step.save overrides SyncableModel.save\n" in step
    assert max(map(len, lines)) < 130


def test_models_that_are_alike_share_a_paragraph() -> None:
    assert "\nmodel_zoo.Region, model_zoo.Town: captured save\n" in output("--profile", MODEL_ZOO)


def test_cycles_and_exclusive_models_are_named(settings: Any) -> None:
    settings.MORANGO_CELERY = {"EXCLUSIVE_MODELS": ["model_zoo.Club", "model_zoo.Album"]}
    text = output("--profile", MODEL_ZOO)
    assert "\nmodel_zoo.Album: exclusive\n" in text
    (member,) = [
        each for each in parsed("--profile", MODEL_ZOO)["profiles"][0]["models"] if each["name"] == "member"
    ]
    assert (member["exclusive"], member["exclusive_reasons"], member["cycle"]) == (
        True,
        [],
        ["model_zoo.Club"],
    )
    assert "refer to each other, here by president, and are deserialized together" in " ".join(text.split())
    assert "its batches are executed one after another: EXCLUSIVE_MODELS names model_zoo.Album" in " ".join(
        text.split()
    )
