"""SQLite runs out of disk, or is interrupted, and rolls back the whole transaction by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from morango.models import Store
from morango.models.certificates import Filter

import morango_celery
from morango_celery.api import deserialize_from_store
from morango_celery.models import Run
from morango_celery.serialization import serialize_into_store
from tests.library.logs import append, ingest, letters, library, save
from tests.support import factories
from tests.support.schools import School
from worker.school.models import PROFILE, Learner, Lesson

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'sqlite'", reason="is about SQLite"),
]

FULL = "database or disk is full"
PAGE_BYTES = 512
"""Size of pages, as small as possible, so that as many statements as possible need a new page."""


class Copy:
    """The database as it was at one moment, to begin from again and again."""

    def __init__(self, folder: Path) -> None:
        self.path = connection.settings_dict["NAME"]
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            cursor.execute("VACUUM")
            (self.pages,) = cursor.execute("PRAGMA page_count").fetchone()
        connection.close()
        self.copy = shutil.copy(self.path, folder / "copy.sqlite3")

    def restore(self) -> None:
        connection.close()
        shutil.copy(self.copy, self.path)

    def with_ever_more_room(self, steps: int) -> Iterator[int]:
        """Begin again and again, with so many more pages each time."""
        for pages in count(self.pages, steps):
            self.restore()
            yield pages


@pytest.fixture
def remember(tmp_path: Path) -> Iterator[Callable[[], Copy]]:
    """Return a function that takes a `Copy` now; after the test the database is as it was then."""
    copies: list[Copy] = []

    def take() -> Copy:
        copies.append(Copy(tmp_path))
        return copies[0]

    yield take
    for copy in copies:
        copy.restore()


@contextmanager
def full_at(pages: int) -> Iterator[None]:
    """Let the database have so many pages, as if the disk were full then."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        connection.close()  # the limit is the connection's


@contextmanager
def interrupted_after(looks: int) -> Iterator[None]:
    """Interrupt, once, the statement at the n-th look that SQLite takes while it works."""
    looked = count(1)
    connection.ensure_connection()
    connection.connection.set_progress_handler(lambda: next(looked) == looks, 100)
    try:
        yield
    finally:
        connection.close()


def what_stops(call: Callable[[], object], fault: AbstractContextManager[None]) -> str:
    """Return the error of a call that meets the fault; "" for none."""
    try:
        with fault:
            call()
    except OperationalError as error:
        return str(error)
    return ""


def ids_of(app: dict[str, list[dict[str, Any]]]) -> set[str]:
    return {row["id"] for rows in app.values() for row in rows}


def assert_nothing_is_half_written(school: School, before: set[str]) -> None:
    """Check that a record's new row is there if, and only if, the record counts as done.

    :param before: the ids of the rows that were there
    """
    outcome = school.outcome()
    there = ids_of(outcome.app)
    for store_id in ids_of(school.expected.app) - before:
        is_dirty, *_ = outcome.store[store_id]
        assert is_dirty is (store_id not in there), store_id


def carry_out(school: School) -> Run:
    return morango_celery.deserialize(PROFILE, Filter(school.id), in_process=True)


@pytest.fixture(params=[(), ("school.Learner", "school.Attempt")], ids=["bulk", "one by one"])
def small_batches(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.MORANGO_CELERY = {
        **settings.MORANGO_CELERY,
        "BATCH_SIZE_RECORDS": 60,
        "SAVE_INDIVIDUALLY": request.param,
    }


@pytest.mark.usefixtures("small_batches")
def test_full_disk_is_named_and_leaves_nothing_half_written(
    make_school: Any, remember: Callable[[], Copy], exhaustive: bool
) -> None:
    # Given records of every fate, and room for a few pages more, each time for some more than before
    school = make_school(150)
    before = ids_of(school.outcome().app)
    copy = remember()
    failed = 0
    for pages in copy.with_ever_more_room(1 if exhaustive else 19):
        # When they are deserialized
        error = what_stops(lambda: carry_out(school), full_at(pages))
        if not error:
            break
        failed += 1

        # Then what is done is done, the rest waits, and the ledger says why
        assert error == FULL
        assert_nothing_is_half_written(school, before)
        run = Run.objects.last()
        if run is not None and run.has_ended:
            assert (run.state, run.error) == (Run.State.FAILED, f"django.db.utils.OperationalError: {FULL}")

        # ... and it goes on when there is room again
        assert carry_out(school).state == Run.State.COMPLETED
        school.assert_intact()
    assert failed > (100 if exhaustive else 5)


@pytest.mark.usefixtures("small_batches")
def test_interrupt_is_named_and_leaves_nothing_half_written(
    make_school: Any, remember: Callable[[], Copy], exhaustive: bool
) -> None:
    school = make_school(150)
    before = ids_of(school.outcome().app)
    copy = remember()
    failed = 0
    for looks in count(1, 3 if exhaustive else 40):
        copy.restore()
        error = what_stops(lambda: carry_out(school), interrupted_after(looks))
        if not error:
            break
        failed += 1
        assert error == "interrupted"
        assert_nothing_is_half_written(school, before)
        assert carry_out(school).state == Run.State.COMPLETED
        school.assert_intact()
    assert failed > (100 if exhaustive else 5)


def meet_a_full_disk_and_ignore_it() -> None:
    with connection.cursor() as cursor, suppress(OperationalError):
        cursor.execute("PRAGMA max_page_count = 1")
        cursor.execute(
            "INSERT INTO django_session (session_key, session_data, expire_date) VALUES (%s, %s, %s)",
            ["key", "x" * 1_000_000, "2030-01-01"],
        )


@pytest.mark.parametrize("way", ["captured", "one by one"])
@pytest.mark.parametrize("method", ["save", "deserialize", "clean_fields", "serialize"])
def test_model_that_ignores_the_error_changes_nothing(
    settings: Any, monkeypatch: pytest.MonkeyPatch, method: str, way: str
) -> None:
    # Given learners whose code takes every error for its own
    if way == "one by one":
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["school.Learner"]}
    factories.fill_store(100)
    morango_celery.deserialize(PROFILE, in_process=True)
    if method == "serialize":
        Learner.objects.earliest("pk").save()
    Store.objects.update(dirty_bit=True)
    before = (factories.app_rows(), list(Store.objects.order_by("id").values()))
    harmless = getattr(Learner, method)

    def careless(*args: Any, **options: Any) -> Any:
        meet_a_full_disk_and_ignore_it()
        return harmless(*args, **options)

    # When the disk is full while that code runs, then nobody goes on as if nothing had happened
    monkeypatch.setattr(Learner, method, careless)
    with pytest.raises(OperationalError, match=FULL):
        morango_celery.deserialize(PROFILE, in_process=True)
    connection.close()
    assert (factories.app_rows(), list(Store.objects.order_by("id").values())) == before

    # ... and there is room again
    monkeypatch.undo()
    assert morango_celery.deserialize(PROFILE, in_process=True).state == Run.State.COMPLETED


def test_full_disk_undoes_all_of_an_open_transaction(remember: Callable[[], Copy]) -> None:
    factories.fill_store(150)
    copy = remember()

    def in_a_transaction() -> None:
        with transaction.atomic():
            deserialize_from_store(PROFILE)

    failed = 0
    for pages in copy.with_ever_more_room(5):
        error = what_stops(in_a_transaction, full_at(pages))
        if not error:
            break
        failed += 1
        assert error == FULL
        assert not Run.objects.exists()
        assert Store.objects.filter(dirty_bit=True).count() == 150
        assert ids_of(factories.app_rows()) == set()
    assert failed > 10


def test_full_disk_leaves_no_edit_half_serialized(remember: Callable[[], Copy]) -> None:
    factories.fill_store(150)
    morango_celery.deserialize(PROFILE, in_process=True)
    for lesson in Lesson.objects.all():
        lesson.title += ", and how it went on" * 5
        lesson.save()
    edited = set(Lesson.objects.values_list("id", flat=True))
    stored = list(Store.objects.order_by("id").values())
    copy = remember()
    failed = 0
    for pages in copy.with_ever_more_room(1):
        error = what_stops(lambda: serialize_into_store(PROFILE), full_at(pages))
        if not error:
            break
        failed += 1
        assert error == FULL
        assert set(Lesson.objects.filter(_morango_dirty_bit=True).values_list("id", flat=True)) == edited
        assert list(Store.objects.order_by("id").values()) == stored
    assert failed > 2
    assert not Lesson.objects.filter(_morango_dirty_bit=True).exists()


def test_full_disk_makes_no_dead_letters(remember: Callable[[], Copy], tmp_path: Path) -> None:
    lines = [save("shelf", number, name=f"Shelf {number}") for number in range(1, 200)]
    append(tmp_path / "log", *lines, save("shelf", 200, name="on none", inside=999))
    copy = remember()
    failed = 0
    for pages in copy.with_ever_more_room(1):
        error = what_stops(lambda: ingest(tmp_path / "log"), full_at(pages))
        if not error:
            break
        failed += 1
        assert error == FULL
        assert not letters()
        assert not library()["library.Shelf"]
    assert failed > 5
    assert len(library()["library.Shelf"]) == 199
    assert len(letters()) == 1
