"""Reasons in a model's code and class against the fast path, each with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.db.models.signals import post_init
from django.test import override_settings

from morango_celery.deserialization import equivalent, exclusive, rows
from morango_celery.deserialization.exclusive import is_exclusive
from morango_celery.deserialization.parse import fast_path, instance_reasons
from morango_celery.deserialization.reasons import Kind
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from morango_celery.equivalents import Between, declare, declared
from morango_celery.explanation import explain
from morango_celery.explanation.advice import _ADVICE, advice_on
from tests.model_zoo import declared as zoo
from tests.model_zoo.models import Lorry, Person, Region, Sign, Step, Track
from tests.neighbours.models import Branch, Memo, Vote
from tests.unit.reasons import line_of, places, reason_of, remedy
from worker.school.models import Learner, Lesson

HERE = "tests/unit/test_reasons.py"
ZOO = "tests/model_zoo/models.py"
PROFILES = ("model_zoo", "neighbours", "school", "side_effects")


def decision_on(model: Any, monkeypatch: pytest.MonkeyPatch) -> rows.Decision:
    """Return what the engine would decide about a model in a new process."""
    monkeypatch.setattr(equivalent, "mismatch", equivalent.mismatch.__wrapped__)  # type: ignore[attr-defined]  # not the kept one
    return rows._made(model)


@contextmanager
def declaring(model: Any, **changes: Any) -> Iterator[None]:
    was = declared(model)
    assert was is not None
    declare(model, replace(was, **changes))
    try:
        yield
    finally:
        declare(model, was)


ALL = [each.model for profile in PROFILES for each in explain(profile)]
LABELS = [model._meta.label for model in ALL]


@pytest.mark.parametrize(
    "ours",
    [{}, {"USE_EQUIVALENTS": False}, {"SAVE_INDIVIDUALLY": LABELS}, {"EXCLUSIVE_MODELS": LABELS}],
    ids=["defaults", "without equivalents", "saved individually", "exclusive"],
)
def test_model_has_a_fast_path_if_and_only_if_no_reason_is_against_it(ours: Any, settings: Any) -> None:
    settings.MORANGO_CELERY = ours
    has_plan = {model for model in ALL if fast_path(model) is not None}
    assert has_plan == {model for model in ALL if not instance_reasons(model)}
    assert bool(has_plan) is (not ours.keys() & {"SAVE_INDIVIDUALLY", "EXCLUSIVE_MODELS"})
    written_alone = {model for model in ALL if traits_of(model).write_strategy is WriteStrategy.INDIVIDUAL}
    assert written_alone == {model for model in ALL if traits_of(model).individual_reasons}
    assert {model for model in ALL if is_exclusive(model)} == {
        model for model in ALL if exclusive.exclusive_reasons(model)
    }


def test_each_kind_of_reason_has_a_remedy() -> None:
    assert set(_ADVICE) == set(Kind)


def test_override_without_an_equivalent_is_named_with_its_line() -> None:
    reason = reason_of(Step, Kind.NO_EQUIVALENT)
    assert reason.text == "it overrides save, and no equivalent is declared"
    assert places(reason) == [f"{ZOO}:{line_of('def save', ZOO, within='class Step(')}"]
    assert reason.code[0].overrides == "morango.models.core.SyncableModel.save"
    assert "Equivalent(overrides=('save',), ...)" in remedy(Step, reason)


def test_every_override_is_named_of_each_base_class() -> None:
    reason = reason_of(Person, Kind.NO_EQUIVALENT)
    assert places(reason) == [
        f"{ZOO}:{line_of('def clean_fields', ZOO, within='class Person(')}",
        f"{ZOO}:{line_of('@classmethod', ZOO, within='class Person(')}",
    ]
    assert "overrides=('clean_fields', 'deserialize')" in remedy(Person, reason)


def test_equivalent_of_another_version_is_named_with_both_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    was = declared(Track)
    assert was is not None
    with declaring(Track, sha256="0" * 64):
        (reason,) = decision_on(Track, monkeypatch).reasons
        said = remedy(Track, reason)
    assert (reason.kind, reason.subject) == (Kind.OTHER_VERSION, was.sha256)
    assert "0" * 64 in reason.text
    file = "tests/model_zoo/declared.py"
    assert places(reason) == [f"{file}:{line_of(f'def {name}', file)}" for name in zoo.OVERRIDES]
    assert f"set `sha256` to {was.sha256}, which is source_hash(Track, {zoo.OVERRIDES + zoo.CALLS!r})" in said


@pytest.mark.parametrize(
    ("changes", "kind", "subject", "advice"),
    [
        ({"overrides": ("save",)}, Kind.FURTHER_OVERRIDE, "clean_fields", "Read clean_fields."),
        ({"rules": (Between("score", 1, 0),)}, Kind.UNUSABLE_RULE, "score", "Mend the rule about score"),
        ({"calls": ("gone",)}, Kind.UNREADABLE_CODE, "", "Mend `overrides` and `calls`"),
    ],
)
def test_unusable_equivalent_is_named_with_what_to_mend(
    changes: dict[str, Any], kind: Kind, subject: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with declaring(Track, **changes):
        (reason,) = decision_on(Track, monkeypatch).reasons
    assert (reason.kind, reason.subject) == (kind, subject)
    assert remedy(Track, reason).startswith(advice)


def test_switched_off_equivalents_are_the_reason() -> None:
    with override_settings(MORANGO_CELERY={"USE_EQUIVALENTS": False}):
        reason = reason_of(Track, Kind.EQUIVALENTS_OFF)
    assert [each.name for each in reason.code] == ["Track.save", "Track.clean_fields"]
    assert "USE_EQUIVALENTS" in remedy(Track, reason)


def test_receiver_of_instances_is_named() -> None:
    def receive(**kwargs: Any) -> None: ...

    post_init.connect(receive, sender=Lesson)
    try:
        reason = reason_of(Lesson, Kind.RECEIVER)
        (explained,) = [each for each in explain(Lesson.morango_profile) if each.model is Lesson]
    finally:
        post_init.disconnect(receive, sender=Lesson)
    assert places(reason) == [f"{HERE}:{line_of('def receive(', HERE)}"]
    assert reason.subject == "post_init"
    assert explained.reasons == (reason,)
    assert "`sender`" in explained.advice[0]
    assert instance_reasons(Lesson) == ()


def test_tree_has_no_remedy_and_needs_none_of_the_others() -> None:
    reasons = instance_reasons(Region)
    assert [reason.kind for reason in reasons] == [Kind.TREE, Kind.NO_EQUIVALENT]
    assert reasons[0].text == "Morango deserializes it as a tree: parent refers to model_zoo.Site"
    (said,) = advice_on(reasons, Region)
    assert said.startswith("Nothing leads a tree to the fast path")


def test_further_table_is_the_reason_and_the_tree_goes_with_it() -> None:
    reasons = instance_reasons(Lorry)
    assert [(reason.kind, reason.subject) for reason in reasons] == [
        (Kind.TABLES, "model_zoo.Vehicle"),
        (Kind.TREE, "vehicle_ptr"),
    ]
    assert places(reasons[0]) == [f"{ZOO}:{line_of('class Vehicle(', ZOO)}"]
    (said,) = advice_on(reasons, Lorry)
    assert said.startswith("Inherit from an abstract class instead of model_zoo.Vehicle")


def test_column_that_the_database_computes_is_named() -> None:
    file = "tests/model_zoo/fields.py"
    reason = reason_of(Sign, Kind.COMPUTED_COLUMN)
    assert (reason.subject, places(reason)) == ("text", [f"{file}:{line_of('def get_placeholder', file)}"])
    assert remedy(Sign, reason).startswith("text: compute the value in Python")


def test_settings_that_name_a_model_are_the_reason(settings: Any) -> None:
    settings.MORANGO_CELERY = {
        "SAVE_INDIVIDUALLY": ["school.Learner"],
        "EXCLUSIVE_MODELS": ["neighbours.Memo"],
    }
    named, excluded = reason_of(Learner, Kind.SAVED_INDIVIDUALLY), reason_of(Memo, Kind.EXCLUSIVE)
    assert (named.text, named.subject) == ("SAVE_INDIVIDUALLY names school.Learner", "SAVE_INDIVIDUALLY")
    assert (excluded.text, excluded.subject) == ("EXCLUSIVE_MODELS names neighbours.Memo", "EXCLUSIVE_MODELS")
    assert remedy(Learner, named).startswith("Remove it from SAVE_INDIVIDUALLY")
    assert remedy(Memo, excluded).startswith("Nothing, as long as its save() counts")


def test_class_that_is_known_as_exclusive_is_named() -> None:
    reason = reason_of(Branch, Kind.EXCLUSIVE)
    assert (reason.subject, [each.name for each in reason.code]) == ("MPTTModel", ["MPTTModel"])
    assert places(reason)[0].startswith("mptt/models.py:")


def test_model_that_was_seen_to_update_other_rows_is_named() -> None:
    exclusive.recognize(Vote, "UPDATE tally SET")
    reason = reason_of(Vote, Kind.SEEN_WRITING)
    assert remedy(Vote, reason).startswith("Name it in EXCLUSIVE_MODELS")


def test_no_path_of_this_machine_is_shown() -> None:
    shown = [
        place
        for profile in PROFILES
        for each in explain(profile)
        for reason in (*each.reasons, *each.exclusive_reasons)
        for place in places(reason)
    ]
    assert len(shown) > 40
    assert not [place for place in shown if place.startswith("/")]


def test_states_of_equivalents_are_told_apart() -> None:
    of = {each.label: each for each in explain("model_zoo")}
    assert [of[f"model_zoo.{name}"].equivalent for name in ("Album", "Step", "Track")] == [
        "not needed",
        "none declared",
        "matches",
    ]
    with override_settings(MORANGO_CELERY={"USE_EQUIVALENTS": False}):
        track = next(each for each in explain("model_zoo") if each.label == "model_zoo.Track")
    assert (track.equivalent, track.equivalent_problem and track.equivalent_problem.kind) == (
        "unused",
        Kind.EQUIVALENTS_OFF,
    )
