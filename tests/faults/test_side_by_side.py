"""Local edits, other runs, and Morango itself, at the same time as a run by real workers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pkgutil import resolve_name
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connection, transaction
from morango.models import InstanceIDModel, Store

import morango_celery
from morango_celery.api import wait_for
from morango_celery.db.errors import is_transient
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.serialization import serialize_into_store
from tests.support.concurrency import again_and_again, serialize, sync
from tests.support.factories import SCHOOL_ID, fill_store
from tests.support.schools import MakeSchool
from tests.support.waiting import sessions_that_wait_for_a_lock, until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE, Attempt, Lesson, Unit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]

SMALL_BATCHES = {"MORANGO_CELERY_BATCH_SIZE_RECORDS": "20"}
EDITS_PER_SECOND = 50


def newer(rows: Sequence[Store], **values: Any) -> list[Store]:
    """Return the rows with other values in their JSON, unsaved."""
    for row in rows:
        row.serialized = json.dumps({**json.loads(row.serialized), **values})
    return list(rows)


def rows_of(model_name: str) -> list[Store]:
    return list(Store.objects.filter(model_name=model_name).order_by("id"))


def test_no_local_edit_is_lost(celery_worker_process: StartWorker) -> None:
    # Given app rows, and newer versions of all of them in the Store
    fill_store(400)
    morango_celery.deserialize(PROFILE, in_process=True)
    attempts = newer(rows_of("attempt"), answer="synced")
    sync(attempts, 2, SCHOOL_ID)
    celery_worker_process(concurrency=2, **SMALL_BATCHES)

    # When somebody edits them all the time while they are deserialized
    chance = random.Random(7)
    edits: dict[str, float] = {}

    def edit() -> None:
        pk = chance.choice(attempts).id
        with transaction.atomic():
            attempt = Attempt.objects.select_for_update().get(pk=pk)
            attempt.score = round(chance.random(), 6)
            attempt.save()
        edits[pk] = attempt.score

    with again_and_again(edit, pause_seconds=1 / EDITS_PER_SECOND) as done:
        until(lambda: done[0] > 5, "edited a few times")
        run = morango_celery.deserialize(PROFILE, wait=60)
        at_end = done[0]
        until(lambda: done[0] > at_end + 5, "edited some more")
    morango_celery.deserialize(PROFILE, wait=60)  # serializes the last edit

    # Then each row has its last edit, here and in the Store
    assert run.state == Run.State.COMPLETED
    assert dict(Attempt.objects.filter(pk__in=edits).values_list("pk", "score")) == edits
    stored = {row.id: row for row in rows_of("attempt")}
    assert {pk: json.loads(stored[pk].serialized)["score"] for pk in edits} == edits
    assert not Store.objects.filter(dirty_bit=True).exists()
    assert not Attempt.objects.filter(_morango_dirty_bit=True).exists()
    # ... and no synced version is lost: it was edited, or it is kept with what it conflicted with
    conflicts = {pk for pk, row in stored.items() if '"answer": "synced"' in row.conflicting_serialized_data}
    assert conflicts
    not_applied = Attempt.objects.exclude(answer="synced").values_list("pk", flat=True)
    assert set(not_applied) <= conflicts <= set(edits)


def test_runs_with_overlapping_filters_deserialize_each_record_once(
    celery_worker_process: StartWorker, make_school: MakeSchool
) -> None:
    # Given two schools, and runs of the one, of the other, of both together, and of one again
    schools = [make_school(200), make_school(200)]
    first, second = (school.id for school in schools)
    filters = [first, None, f"{second}\n{first}", first, second]
    runs = [
        Run.objects.create(profile=PROFILE, filter=text, session_notified=True, serialize_first=True)
        for text in filters
    ]

    # ... on a device that has its identity: Morango itself gives it two, if two serialize first at once
    InstanceIDModel.get_or_create_current_instance()

    # When workers carry them out at the same time
    for _ in range(2):
        celery_worker_process(concurrency=2, **SMALL_BATCHES)
    for run in runs:
        assert CeleryDispatch().start(run)
    for run in runs:
        wait_for(run, 60)

    # Then the schools are as after one run, and nothing was saved twice
    for school in schools:
        school.assert_intact()
    assert sum(run.saved for run in runs) == sum(school.expected.counts["saved"] for school in schools)


def test_dequeuing_and_serialization_beside_runs_lose_no_version(celery_worker_process: StartWorker) -> None:
    # Given app rows
    fill_store(300)
    morango_celery.deserialize(PROFILE, in_process=True)
    lessons = rows_of("lesson")
    celery_worker_process(concurrency=2, **SMALL_BATCHES)
    version = 1

    def arrive() -> None:
        nonlocal version
        version += 1
        sync(newer(lessons, title=f"version {version}"), version, SCHOOL_ID)

    # When newer versions keep arriving, and Morango keeps serializing, while runs go on
    with again_and_again(arrive, lambda: serialize(PROFILE, SCHOOL_ID), pause_seconds=0.3) as done:
        until(lambda: done[0] > 0, "arrived")
        runs = [morango_celery.deserialize(PROFILE, SCHOOL_ID, wait=60)]
        at_first = list(done)
        while any(now < then + 2 for now, then in zip(done, at_first, strict=True)):
            runs.append(morango_celery.deserialize(PROFILE, SCHOOL_ID, wait=60))
    runs.append(morango_celery.deserialize(PROFILE, wait=60))

    # Then the last version is stored
    assert {run.state for run in runs} == {Run.State.COMPLETED}
    assert sum(run.saved for run in runs) > len(lessons)
    assert set(Lesson.objects.values_list("title", flat=True)) == {f"version {version}"}
    assert not Store.objects.filter(dirty_bit=True).exists()


def test_version_that_arrives_during_its_records_batch_stays_dirty(
    celery_worker_process: StartWorker,
) -> None:
    # Given a batch that has claimed its records, and waits for an app row that another session holds
    fill_store(100)
    morango_celery.deserialize(PROFILE, in_process=True)
    lessons = rows_of("lesson")
    sync(newer(lessons, title="second"), 2, SCHOOL_ID)
    celery_worker_process(concurrency=1)

    def arrive() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE morango_store SET serialized = replace(serialized, 'second', 'third'),"
                " dirty_bit = true WHERE model_name = 'lesson' AND serialized LIKE '%second%'"
            )

    with ExitStack() as holding:
        holding.enter_context(app_row_held(lessons[0].id))
        run = morango_celery.deserialize(PROFILE)
        until(lambda: len(sessions_that_wait_for_a_lock()) == 1, "in the middle of the batch")

        # When the next version of those records arrives
        with again_and_again(arrive) as done:
            until(lambda: len(sessions_that_wait_for_a_lock()) == 2, "waiting for the batch")
            holding.close()
            wait_for(run, 60)
            until(lambda: done[0] > 0, "stored")

    # Then it isn't taken for deserialized
    assert run.saved == len(lessons)
    assert set(Lesson.objects.values_list("title", flat=True)) == {"second"}
    assert Store.objects.filter(dirty_bit=True).count() == len(lessons)
    assert morango_celery.deserialize(PROFILE, wait=60).saved == len(lessons)
    assert set(Lesson.objects.values_list("title", flat=True)) == {"third"}


@contextmanager
def app_row_held(pk: str) -> Iterator[None]:
    """Keep a lesson's row locked by a connection of another's."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT 1 FROM school_lesson WHERE id = %s FOR UPDATE", [pk])
        yield
        other.rollback()
    finally:
        other.close()


@pytest.mark.parametrize(
    "step",
    [
        "morango_celery.serialization.store.note_unless_edited",
        "morango_celery.upstream._lock_partitions",
        "morango_celery.serialization.store.find_edits",
    ],
)
def test_session_cut_during_serialization_leaves_all_or_nothing(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a local edit, and a session that the server ends at some step
    Unit.objects.create(name="edited", school_id="ab" * 16)
    InstanceIDModel.get_or_create_current_instance()
    original: Any = resolve_name(step)

    def and_then_cut(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
            until(lambda: not _is_alive(other, pid), "gone")
        other.close()
        return result

    monkeypatch.setattr(step, and_then_cut)

    # Then the error is retried, though Morango's isolation changes the connection
    with pytest.raises((DatabaseError, InterfaceError)) as raised:
        serialize_into_store(PROFILE, None)
    connection.close()
    assert isinstance(raised.value, DatabaseError | InterfaceError)
    assert is_transient(raised.value)


def _is_alive(other: Any, pid: int) -> bool:
    with other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
        return cursor.fetchone() is not None
