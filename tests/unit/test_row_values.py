"""Fast path from JSON to row: of any value it makes what the slow path makes, or nothing."""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morango_celery.deserialization.rows import row_plan
from tests.support import factories
from tests.unit.rows import ABSENT, FIELDS, HEX, MODELS, assert_fast_path_is_safe, fast_path_row, record
from worker.school.models import Attempt, Feedback, Lesson

# The fast path exists for these: if it declined them, it would be useless
PLAIN: dict[str, list[Any]] = {
    "char": ["x", "fives", "é", " "],
    "char_blank": ["", "x"],
    "char_null": [None, "", "x"],
    "char_null_default": [None, ABSENT],
    "char_choices": ["one", "two"],
    "char_choices_null": [None, "one"],
    "char_choices_grouped": ["one", "two"],
    "char_unique": ["x"],
    "text": ["x" * 10_000, "\n"],
    "text_null": [None, ""],
    "boolean": [True, False],
    "boolean_null": [None, True],
    "integer": [0, -1, 2**31 - 1],
    "integer_null": [None, 7],
    "integer_bounded": [-3, 0, 3],
    "integer_choices": [0, 3],
    "big": [2**63 - 1],
    "positive": [0, 5],
    "float": [0.5, 1, -1e100, 0, -0.0],
    "float_bounded": [0, 0.25, 1.0],
    "moment": ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678901Z"],
    "moment_null": [None],
    "moment_updated": ["2026-01-02T03:04:05.678901Z"],
    "day": ["2026-01-02"],
    "day_null": [None, "2024-02-29"],
    "uuid": [HEX],
    "uuid_null": [None, HEX],
    "dashed": [str(uuid.UUID(HEX))],
    "dashed_null": [None, str(uuid.UUID(HEX))],
    "char_longer": ["abc"],
    "reference": [HEX],
    "reference_null": [None, HEX],
    "reference_one_to_one": [HEX],
}

# Any Unicode character, half of a pair and NUL included
characters = st.characters(codec=None, exclude_categories=())

near = st.sampled_from(["one", "two", " ", "0", "1.5", "true", "abcd", "x" * 41])

texts = st.text(characters, max_size=7) | near

numbers = (
    st.integers(-5, 5)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([10**400, -(2**15) - 1, 2**31, 2**63, -(2**63) - 1])
    | st.floats()
    | st.sampled_from([0.5, 1.0, 3.0])
)

moments = st.one_of(
    st.datetimes(timezones=st.just(datetime.UTC)).map(lambda m: m.isoformat().replace("+00:00", "Z")),
    st.datetimes().map(lambda m: m.isoformat(timespec="milliseconds") + "Z"),
    st.datetimes().map(datetime.datetime.isoformat),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=3)))).map(str),
    # With and without separators, with points and commas, and with days and minutes that don't exist
    st.from_regex(r"2026-0[0-3]-[0-3]1[T ]0[1-4]:?[0-6]0:?[0-6]0([.,][0-9]{1,7})?(Z|\+01)?", fullmatch=True),
    st.from_regex(r"[0-9W-]{10}T[0-9:.,+-]{8,15}Z", fullmatch=True),
)

days = st.one_of(
    st.dates().map(datetime.date.isoformat),
    st.from_regex(r"[0-9W-]{8,10}", fullmatch=True),
    st.sampled_from(["2026-W01-1", "2026-1-2", "20260102", "2026-02-30", "2026-01-02", "2026-01-02 "]),
)

uuids = st.one_of(
    st.uuids().map(lambda value: value.hex),
    st.uuids().map(str),
    st.uuids().map(lambda value: value.hex.upper()),
    st.sampled_from([HEX, HEX[1:], HEX + "0", HEX[:-1] + "g", "{" + HEX + "}", "\u0663" * 32]),
)

nested = st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)

anything = st.one_of(st.none(), st.just(ABSENT), st.booleans(), numbers, texts, moments, days, uuids, nested)

OF_KIND: dict[str, st.SearchStrategy[Any]] = {
    "char": texts,
    "text": texts,
    "boolean": st.booleans() | numbers | near,
    "integer": numbers,
    "big": numbers,
    "small": numbers,
    "positive": numbers,
    "float": numbers,
    "moment": moments,
    "day": days,
    "uuid": uuids,
    "dashed": uuids,
    "reference": uuids,
}


@pytest.mark.parametrize("name", FIELDS)
def test_value_is_written_as_the_slow_path_would_or_not_at_all(name: str) -> None:
    model = MODELS[name]
    attname = model._meta.get_field(name).attname

    @settings(max_examples=60, deadline=None)
    @given(OF_KIND[name.partition("_")[0]] | anything)
    def holds(value: Any) -> None:
        assert_fast_path_is_safe(model, record(model, {attname: value}))

    if row_plan(model) is not None:
        holds()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, plain in PLAIN.items() for value in plain], ids=repr
)
def test_plain_value_takes_the_fast_path(name: str, value: Any) -> None:
    model = MODELS[name]
    store = record(model, {model._meta.get_field(name).attname: value})

    assert fast_path_row(model, store) is not None
    assert_fast_path_is_safe(model, store)


# Each case is one where a value passes for plain at a first glance
CLOSE = [
    ("char_shorter", "abcd"),
    ("char_longer", "ab"),
    ("char_pattern", "b"),
    ("char", ""),
    ("char", "sixsix"),
    ("char", "\x00"),
    ("char_not_editable", None),
    ("char_null_not_blank", None),
    ("char_default_too_long", ABSENT),
    ("char_without_choice", "x"),
    ("char_choices", "three"),
    ("text_capped", "abcd"),
    ("boolean", 1),
    ("boolean", "true"),
    ("boolean_choices", False),
    ("boolean_validated", True),
    ("integer", True),
    ("integer", 1.0),
    ("integer", "1"),
    ("integer_validated", 3),
    ("integer_moving_bound", 3),
    ("integer_choices", 2),
    ("integer_bounded", -4),
    ("integer_bounded", 4),
    ("positive", -1),
    ("positive", 2**31),
    ("integer_null_not_blank", None),
    ("float", True),
    ("float", 10**400),
    ("float", float("nan")),
    ("float", float("inf")),
    ("float_bounded", 1.1),
    ("float_bounded", -0.1),
    ("moment", "2026-01-02T030405.0Z"),
    ("moment", "2026-01-02T030405.12345Z"),
    ("moment", "2026-01-02T03:04:05"),
    ("moment", "2026-01-02T25:04:05Z"),
    ("moment_validated", "2026-01-01T03:04:05Z"),
    ("moment_created", None),
    ("day", "2026-W01-1"),
    ("day", "2026-02-30"),
    ("day_validated", "2026-01-01"),
    ("uuid", HEX.upper()),
    ("uuid", ""),
    ("uuid_validated", HEX),
    ("uuid_choices", "f" * 32),
    ("reference", None),
    ("reference", 5),
    ("reference_null_not_blank", None),
]


@pytest.mark.parametrize(("name", "value"), CLOSE, ids=repr)
def test_value_that_only_looks_plain_is_not_taken_for_it(name: str, value: Any) -> None:
    model = MODELS[name]

    assert_fast_path_is_safe(model, record(model, {model._meta.get_field(name).attname: value}))


KINDS = {
    "id": uuids,
    "school_id": uuids,
    "unit_id": uuids,
    "learner_id": uuids,
    "lesson_id": uuids | st.none(),
    "attempt_id": uuids,
    "title": texts,
    "opens_at": moments | st.none(),
    "kind": st.sampled_from(["exercise", "quiz", "survey", "dance"]),
    "score": st.floats(0, 1) | numbers,
    "answered_at": moments,
    "answer": texts,
    "text": texts,
    "_morango_dirty_bit": st.booleans(),
    "_morango_partition": texts,
    "unknown": nested,
}


@pytest.mark.parametrize("model", [Lesson, Attempt, Feedback])
def test_record_of_the_school_is_written_as_the_slow_path_would_or_not_at_all(model: Any) -> None:
    assert row_plan(model) is not None
    names = {field.attname for field in model._meta.concrete_fields} | {"unknown"}
    sound = json.loads(factories.build_store_row(model.morango_model_name).serialized)
    sound.update({"id": HEX} | {name: HEX for name in names if name.endswith("_id")})

    @settings(max_examples=100, deadline=None)
    @given(st.fixed_dictionaries({}, optional={name: KINDS[name] for name in names & KINDS.keys()}))
    def holds(changed: dict[str, Any]) -> None:
        assert_fast_path_is_safe(model, record(model, {**sound, **changed}))

    holds()
    assert fast_path_row(model, record(model, sound)) is not None
