"""An explanation says of each model what a batch of its records does: the code that runs, the statements."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from types import CodeType
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store, SyncableModel

from morango_celery.db.dialect import dialect
from morango_celery.deserialization import deserialize_batch, parse, saving
from morango_celery.deserialization.reasons import Kind
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from morango_celery.explanation import ModelExplanation, explain
from morango_celery.explanation.models import Parsing, Validation
from morango_celery.reading.definitions import Definition
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.neighbours.models import PROFILE as NEIGHBOURS
from tests.neighbours.rows import build_row as build_neighbour_row
from tests.side_effects.models import PROFILE as SIDE_EFFECTS
from tests.side_effects.rows import build_row as build_named_row
from tests.support.factories import build_store_row
from worker.school.models import PROFILE as SCHOOL

pytestmark = pytest.mark.django_db

numbers = count(1)
BUILD: dict[str, Callable[..., Store]] = {
    SCHOOL: build_store_row,
    MODEL_ZOO: build_zoo_row,
    NEIGHBOURS: build_neighbour_row,
    SIDE_EFFECTS: lambda name, **fields: build_named_row(name, f"{name} {next(numbers)}", **fields),
}
EXTRA: dict[str, Callable[[int], dict[str, Any]]] = {
    "member": lambda number: {"number": number},
    "label": lambda number: {"number": number},
    "track": lambda number: {"number": number},
    "lorry": lambda number: {"plate": f"{number}"},
    "player": lambda number: {"seat": number, "person_id": f"{number:032x}"},
    "seat": lambda number: {"course": "course", "person": f"{number}"},
    "counted": lambda number: {"keeper": "nobody"},
}
"""Values that a record of a model needs beside the defaults, by the number of the record."""

RECOGNIZED = ("neighbours.Vote", "neighbours.Heap")
"""Models with a ``save()`` that updates other rows, which only PostgreSQL's many writers care about."""
ALSO_IN_LARGE_BATCHES = {
    *(f"school.{name}" for name in ("Unit", "Lesson", "Learner")),
    *(f"model_zoo.{name}" for name in ("Track", "Player", "Label", "Sign", "Crate", "Cabinet", "Folder")),
    "neighbours.Branch",
}


def explanation(profile: str, label: str) -> ModelExplanation:
    return next(each for each in explain(profile) if each.label == label)


CASES = [
    pytest.param(profile, each.label, at_once, id=f"{each.label}-{'small' if at_once else 'large'}")
    for profile in BUILD
    for each in explain(profile)
    for at_once in ((True, False) if each.label in ALSO_IN_LARGE_BATCHES else (True,))
]
MORANGOS_VALIDATION = {
    SyncableModel.deferred_clean_fields.__code__,
    SyncableModel.cached_clean_fields.__code__,
}


def _nothing(number: int) -> dict[str, Any]:
    return {}


def target_name(key: models.ForeignKey[Any, Any], model: type[SyncableModel]) -> str:
    """Return the name of a registered model with rows in the table that a foreign key refers to."""
    table = key.related_model._meta.concrete_model  # type: ignore[union-attr]  # it is a model by now
    registered = [each.model for each in explain(model.morango_profile)]
    found: type[SyncableModel] = next(each for each in registered if each._meta.concrete_model is table)
    name: str = found.morango_model_name
    return name


def build(model: type[SyncableModel], stored: list[Store], *, depth: int = 0) -> Store:
    """Return a record of a model. What it refers to goes to `stored`, dependencies first."""
    profile, name = model.morango_profile, model.morango_model_name
    by_name = {each.model.morango_model_name: each.model for each in explain(profile)}
    references: dict[str, Store] = {}
    for key in traits_of(model).foreign_keys:
        if key.remote_field.parent_link or (depth and key.null):
            continue
        target = by_name[target_name(key, model)]
        there = [row for row in stored if row.model_name == target.morango_model_name]
        if key.unique or not there:
            stored.append(build(target, stored, depth=depth + 1))
            there = stored[-1:]
        references[key.name] = there[-1]
    return BUILD[profile](name, **EXTRA.get(name, _nothing)(next(numbers)), **references)


@contextmanager
def code_that_runs() -> Iterator[set[CodeType]]:
    """Yield the code of all functions that are called inside."""
    found: set[CodeType] = set()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, argument: found.add(frame.f_code) if event == "call" else None)
    try:
        yield found
    finally:
        sys.setprofile(before)


def deserialize(profile: str, rows: list[Store]) -> int:
    """Deserialize rows that are all right, in one batch, and return the number of statements."""
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        result = deserialize_batch(profile, [row.id for row in rows])
    errors = Store.objects.exclude(deserialization_error=None).values_list("deserialization_error", flat=True)
    assert result.saved == len(rows), list(errors)
    return len(queries)


def stored_rows(model: type[SyncableModel], number: int) -> list[Store]:
    """Store records of a model. All that they refer to is there already."""
    stored: list[Store] = []
    rows = [build(model, stored) for _ in range(number)]
    Store.objects.bulk_create([*stored, *rows])
    for row in stored:
        deserialize(row.profile, [row])
    return rows


def parsing(code: set[CodeType]) -> Parsing:
    if parse.instantiate.__code__ not in code:
        return Parsing.ROW
    return Parsing.INSTANCE if parse._deserialized.__code__ in code else Parsing.OWN


def validation(code: set[CodeType], own: set[CodeType]) -> Validation:
    if MORANGOS_VALIDATION.isdisjoint(code):
        return Validation.COLUMNS
    return Validation.CLEAN_FIELDS if own.isdisjoint(code) else Validation.OWN


def writing(code: set[CodeType]) -> WriteStrategy:
    if saving._save_base.__code__ in code:
        return WriteStrategy.INDIVIDUAL
    return WriteStrategy.CAPTURED_SAVE if saving._capture.__code__ in code else WriteStrategy.BULK


def code_of(definitions: Iterable[Definition]) -> set[CodeType]:
    functions: list[Any] = [getattr(each.subject, "__func__", each.subject) for each in definitions]
    return {each.__code__ for each in functions}


@pytest.mark.parametrize(("profile", "label", "at_once"), CASES)
def test_batches_do_what_is_explained(
    profile: str, label: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr("morango_celery.deserialization.batch.MAX_RECORDS", 0)
    explained = explanation(profile, label)
    if label in RECOGNIZED and dialect().has_advisory_locks:  # as soon as they are seen at work
        deserialize(profile, stored_rows(explained.model, 1))
        explained = explanation(profile, label)
        assert [reason.kind for reason in explained.exclusive_reasons] == [Kind.SEEN_WRITING]
    said, traits = explained.statements, traits_of(explained.model)
    rows = stored_rows(explained.model, 2)
    with code_that_runs() as code:
        few = deserialize(profile, rows)
    many = deserialize(profile, stored_rows(explained.model, 5))

    # The way is the one that is explained, and so is the code that runs
    assert parsing(code) is explained.parsing
    assert validation(code, code_of(traits.clean_fields_code)) is explained.validation
    assert writing(code) is explained.writing
    own = code_of((*traits.save_code, *traits.deserialize_code, *traits.clean_fields_code))
    assert own.isdisjoint(code) if explained.is_on_fast_path else (not own or own & code)

    # There are exactly as many statements, or as many at least
    fixed, each = (
        (said.small_batch, said.per_record) if at_once else (said.large_batch, said.per_record_of_large_batch)
    )
    expected = fixed + 2 * each, fixed + 5 * each
    assert (few, many) == expected if said.are_known else few >= expected[0] and many >= expected[1]
