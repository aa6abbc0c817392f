"""Times that PostgreSQL stores and Python can't hold: nobody could read the row again."""

from __future__ import annotations

import pytest
from django.db import DataError, connection
from morango.models import Store

from morango_celery import deserialize_from_store
from morango_celery.deserialization.foreign_keys import ForeignKeyCache, References
from morango_celery.deserialization.prefetch import LazyPrefetcher
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import both
from tests.support.comparison import run, save_all
from tests.support.factories import build_store_row
from worker.school.models import PROFILE, Attempt, Lesson

BEYOND = ["9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00:00+14:00"]
"""Year 10000, and the year before 1, in UTC."""


def visit(person: Store, moment: str) -> Store:
    return build_zoo_row("visit", person=person, began_at=moment)


@pytest.mark.parametrize("moment", BEYOND)
def test_time_beyond_the_calendar_is_its_records_error(moment: str) -> None:
    # Given such times in a column that is written in bulk, and in one of a model that saves each by itself
    home = build_zoo_row("region")
    person = build_zoo_row("person", home=home)
    refused = [build_zoo_row("sample", moment=moment), visit(person, moment)]
    good = [build_zoo_row("sample"), visit(person, "2026-01-02T03:04:05Z")]

    ours = run(deserialize_from_store, [home, person, *refused, *good])

    assert (ours.ids("sample"), ours.ids("visit")) == ({good[0].id}, {good[1].id})
    problem = f"{moment!r}. OverflowError: date value out of range", "builtins.OverflowError"
    said = [f"Not readable: {field} = " for field in ("moment", "began_at")]
    assert ours.errors == {
        row.id: (text + problem[0], problem[1]) for row, text in zip(refused, said, strict=True)
    }


@pytest.mark.skipif("connection.vendor == 'postgresql'", reason="Morango saves it, and can't read it again")
def test_time_beyond_the_calendar_aborts_morango() -> None:
    theirs, ours = both([build_zoo_row("sample", moment=BEYOND[0])])
    assert (theirs.aborted, ours.aborted) == ("builtins.OverflowError", None)


@pytest.mark.needs_postgresql
def test_row_that_can_not_be_read_is_there_all_the_same() -> None:
    unit = build_store_row("unit")
    lessons = [Lesson(id=f"{number:032x}", unit_id=unit.id, school_id=unit.id) for number in range(1, 6)]
    save_all([unit], [])
    deserialize_from_store(PROFILE)
    save_all([], lessons)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE school_lesson SET opens_at = '10000-01-01' WHERE id = %s", [lessons[2].id])
    attempts = [Attempt(lesson_id=row.id) for row in [*lessons, Lesson(id="ab" * 16)]]
    prefetcher = LazyPrefetcher()
    for attempt in attempts:
        prefetcher.track(attempt)

    # When they are looked up, and when a model's code follows the references
    key = Attempt._meta.get_field("lesson")
    known, references = ForeignKeyCache(), References()
    references.add(key, [attempt.lesson_id for attempt in attempts])
    known.look_up(references, {})

    assert [known.row_exists(key, attempt.lesson_id) for attempt in attempts] == [True] * 5 + [False]
    assert [attempts[place].lesson for place in (0, 1, 3, 4)] == [lessons[place] for place in (0, 1, 3, 4)]
    # ... whose error is the driver's own
    with pytest.raises((ValueError, DataError), match=r"year 10000 is out of range|after year 10K"):
        _ = attempts[2].lesson
