"""Faults of the database or of this machine end the run, and are blamed on no record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection
from django.db.models.signals import post_init, pre_delete, pre_init
from django.test.utils import CaptureQueriesContext
from morango.models import Store

import morango_celery
from morango_celery.errors import SystemicError
from morango_celery.models import Run
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.support import factories
from tests.support.run_helpers import dirty_ids, errors
from worker.school.models import PROFILE, Learner, Lesson, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def deserialize(profile: str = PROFILE, **options: Any) -> Run:
    return morango_celery.deserialize(profile, in_process=True, **options)


@pytest.fixture
def one_by_one(settings: Any) -> None:
    settings.MORANGO_CELERY = {
        **settings.MORANGO_CELERY,
        "SAVE_INDIVIDUALLY": ["school.Learner", "school.Lesson"],
    }


@pytest.fixture
def restricted() -> Callable[[str, str], AbstractContextManager[None]]:
    """Return a context manager that takes a privilege on a table away inside its block."""
    sql("CREATE ROLE restricted")
    for kind in ("TABLES", "SEQUENCES"):
        sql(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO restricted")

    @contextmanager
    def restrict(privilege: str, table: str) -> Iterator[None]:
        sql(f"REVOKE {privilege} ON {table} FROM restricted")
        sql("SET LOCAL ROLE restricted")
        try:
            yield
        finally:
            sql("RESET ROLE")

    return restrict


def refused(restriction: AbstractContextManager[None], profile: str = PROFILE) -> tuple[str, str]:
    """Return the error that a run ends with, and the ledger's reason; it must have had no other effect."""
    waiting = dirty_ids()
    before = factories.app_rows(profile)
    with restriction, pytest.raises(DatabaseError) as raised:
        morango_celery.deserialize_from_store(
            profile
        )  # without the serialization, which may come upon it first
    run = Run.objects.latest("pk")
    assert run.state == Run.State.FAILED
    assert (dirty_ids(), errors()) == (waiting, {})
    assert factories.app_rows(profile) == before
    return str(raised.value).strip(), run.error


def fill(profile: str = PROFILE) -> None:
    if profile == PROFILE:
        factories.fill_store(100)
    else:
        Store.objects.bulk_create([build_zoo_row("lorry", plate=f"{number}") for number in range(20)])
        # Each on a trail of its own: a step waits for the one before it, and rows come in any order, since
        # PostgreSQL fills the gaps that other tests have left
        Store.objects.bulk_create([build_zoo_row("step", trail=str(number)) for number in range(1, 20)])


PERMISSIONS = [
    ("INSERT", "school_lesson", PROFILE),
    ("UPDATE", "school_lesson", PROFILE),
    ("SELECT", "school_lesson", PROFILE),
    ("INSERT", "school_learner", PROFILE),
    ("SELECT", "school_unit", PROFILE),
    ("INSERT", "school_unit", PROFILE),
    ("UPDATE", "morango_store", PROFILE),
    ("INSERT", "model_zoo_vehicle", MODEL_ZOO),
    ("INSERT", "model_zoo_lorry", MODEL_ZOO),
    ("INSERT", "model_zoo_step", MODEL_ZOO),
]


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("way", ["together", "one by one"])
@pytest.mark.parametrize(("privilege", "table", "profile"), PERMISSIONS)
def test_permission_that_is_missing_ends_the_run(
    restricted: Any,
    privilege: str,
    table: str,
    profile: str,
    way: str,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given sound records, and a privilege that was taken away
    if way == "one by one":
        settings.MORANGO_CELERY = {"SAVE_INDIVIDUALLY": ["school.Learner", "school.Lesson", "school.Unit"]}
    fill(profile)

    # When they are deserialized
    with CaptureQueriesContext(connection) as queries:
        error, reason = refused(restricted(privilege, table), profile)

    # Then the run says so, at once, and what to do
    assert error == f"permission denied for table {table}"
    assert f"permission denied for table {table}" in reason
    assert "GRANT it SELECT, INSERT, UPDATE and DELETE" in reason
    assert "`manage.py retry_run`" in reason
    assert len(queries) < 70
    assert not [record for record in caplog.records if "Failed to deserialize" in record.message]

    # ... and once it is mended, all are saved
    assert deserialize(profile).failed == 0


@pytest.mark.needs_postgresql
def test_permission_to_delete_that_is_missing_ends_the_run(restricted: Any) -> None:
    fill()
    deserialize()
    Store.objects.filter(model_name="feedback").update(dirty_bit=True, deleted=True)

    error, _ = refused(restricted("DELETE", "school_feedback"))

    assert error == "permission denied for table school_feedback"


@pytest.mark.parametrize("way", ["together", "one by one"])
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE school_lesson RENAME COLUMN title TO other",
        "ALTER TABLE school_lesson RENAME TO other",
        "ALTER TABLE school_learner RENAME COLUMN birth_year TO other",
        "ALTER TABLE school_unit RENAME COLUMN name TO other",
    ],
)
def test_table_or_column_that_is_missing_ends_the_run(change: str, way: str, settings: Any) -> None:
    if way == "one by one":
        settings.MORANGO_CELERY = {"SAVE_INDIVIDUALLY": ["school.Learner", "school.Lesson", "school.Unit"]}
    fill()
    waiting = dirty_ids()
    sql(change)

    with pytest.raises(DatabaseError):
        morango_celery.deserialize_from_store(PROFILE)

    run = Run.objects.latest("pk")
    assert run.state == Run.State.FAILED
    assert "run `manage.py migrate`" in run.error
    assert (dirty_ids(), errors()) == (waiting, {})


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="is about SQLite")
def test_database_that_may_not_be_written_is_no_records_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a database that can't be written any more in the middle of a batch
    fill()
    waiting = dirty_ids()
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        connection.connection.execute("PRAGMA query_only = 1")

    monkeypatch.setattr(Learner, "save", save)
    try:
        with pytest.raises(DatabaseError, match="readonly database"):
            deserialize()
    finally:
        connection.connection.execute("PRAGMA query_only = 0")
    assert (dirty_ids(), errors()) == (waiting, {})


def refused_query(name: str) -> None:
    """Query a missing table, as a model's own code may do."""
    if name == "refused":
        sql("SELECT 1 FROM no_such_table")


def in_save(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        refused_query(self.username)
        original(self, *args, **options)

    monkeypatch.setattr(Learner, "save", save)


def after_save(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        refused_query(self.username)

    monkeypatch.setattr(Learner, "save", save)


def in_clean_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.clean_fields

    def clean_fields(self: Learner, *args: Any, **options: Any) -> None:
        refused_query(self.username)
        original(self, *args, **options)

    monkeypatch.setattr(Learner, "clean_fields", clean_fields)


def in_deserialize(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Learner.deserialize.__func__

    def own(cls: Any, data: Any, sync_filter: Any = None) -> Any:
        refused_query(data["username"])
        return original(cls, data, sync_filter=sync_filter)

    monkeypatch.setattr(Learner, "deserialize", classmethod(own))


def in_a_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    def before(sender: Any, args: Any, kwargs: Any, **_: Any) -> None:
        refused_query(kwargs.get("username", ""))

    monkeypatch.setattr(pre_init, "receivers", list(pre_init.receivers))
    pre_init.connect(before, sender=Learner, weak=False)
    monkeypatch.setattr(pre_init, "sender_receivers_cache", {})


@pytest.mark.parametrize("way", ["together", "one by one"])
@pytest.mark.parametrize("place", [in_save, after_save, in_clean_fields, in_deserialize, in_a_constructor])
def test_query_error_in_models_code_is_an_error_of_its_record(
    monkeypatch: pytest.MonkeyPatch, place: Callable[..., None], way: str, settings: Any
) -> None:
    # Given learners, one of whom makes the model's own code ask for a table that isn't there
    if way == "one by one":
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["school.Learner"]}
    unit = factories.store_row("unit")
    bad = factories.store_row("learner", unit=unit, username="refused")
    good = {factories.store_row("learner", unit=unit).id for _ in range(20)}
    place(monkeypatch)

    run = deserialize()

    # Then that one is in error, and the run goes on
    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 21, 1)
    assert set(Learner.objects.values_list("pk", flat=True)) == good
    ((store_id, exception),) = errors().items()
    assert (store_id, exception) == (
        bad.id,
        f"django.db.utils.{'Programming' if connection.vendor == 'postgresql' else 'Operational'}Error",
    )
    assert "no_such_table" in (Store.objects.get(pk=bad.id).deserialization_error or "")


@pytest.fixture
def deletions() -> list[str]:
    """Three lessons that were deleted elsewhere, the second of which a receiver asks too much about."""
    unit = factories.store_row("unit")
    lessons = [factories.store_row("lesson", unit=unit, title=title) for title in ("a", "refused", "b")]
    deserialize()
    Store.objects.filter(model_name="lesson").update(dirty_bit=True, deleted=True)
    return [lesson.id for lesson in lessons]


@pytest.mark.parametrize("signal", [pre_delete, post_init], ids=["pre_delete", "post_init"])
def test_query_error_in_a_receiver_is_an_error_of_its_record(deletions: list[str], signal: Any) -> None:
    def receive(sender: Any, instance: Lesson, **_: Any) -> None:
        refused_query(instance.title)

    signal.connect(receive, sender=Lesson)
    try:
        run = deserialize()
    finally:
        signal.disconnect(receive, sender=Lesson)

    assert (run.state, run.deleted, run.failed) == (Run.State.COMPLETED, 2, 1)
    assert set(errors()) == {deletions[1]}
    assert list(Lesson.objects.values_list("title", flat=True)) == ["refused"]


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("wrap", [True, False], ids=["wrapped", "swallowed"])
def test_model_that_makes_something_else_of_it_does_not_hide_it(
    monkeypatch: pytest.MonkeyPatch, restricted: Any, one_by_one: None, wrap: bool
) -> None:
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        try:
            original(self, *args, **options)
        except DatabaseError:
            if wrap:
                raise ValidationError("It could not be saved.") from None

    monkeypatch.setattr(Learner, "save", save)
    fill()

    error, _ = refused(restricted("INSERT", "school_learner"))

    assert error == "permission denied for table school_learner"


@pytest.mark.needs_postgresql
def test_row_that_a_policy_forbids_is_an_error_of_its_record(restricted: Any) -> None:
    # Given a policy of the database's that refuses a row
    unit = factories.store_row("unit")
    factories.store_row("lesson", unit=unit, title="fine")
    bad = factories.store_row("lesson", unit=unit, title="forbidden")
    sql("ALTER TABLE school_lesson ENABLE ROW LEVEL SECURITY")
    sql("CREATE POLICY no ON school_lesson USING (true) WITH CHECK (title <> 'forbidden')")
    with restricted("TRUNCATE", "school_lesson"):
        run = deserialize()

    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 2, 1)
    assert "row-level security" in (Store.objects.get(pk=bad.id).deserialization_error or "")


@pytest.mark.needs_postgresql
def test_row_that_a_trigger_forbids_is_an_error_of_its_record() -> None:
    unit = factories.store_row("unit")
    factories.store_row("lesson", unit=unit, title="fine")
    bad = factories.store_row("lesson", unit=unit, title="forbidden")
    sql(
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.title = 'forbidden' THEN RAISE 'not this one' USING ERRCODE = 'insufficient_privilege';"
        " END IF; RETURN NEW; END $$"
    )
    sql("CREATE TRIGGER guard BEFORE INSERT ON school_lesson FOR EACH ROW EXECUTE FUNCTION guard()")

    run = deserialize()

    assert (run.state, run.saved, run.failed) == (Run.State.COMPLETED, 2, 1)
    assert "not this one" in (Store.objects.get(pk=bad.id).deserialization_error or "")


class ServiceDownError(Exception):
    """An error of the application's own."""


LETTERS = str.maketrans("0123456789", "abcdefghij")
"""A table that spells numbers with letters, so that texts differ in more than numbers."""


def failing(error: Callable[[Learner], Exception | None]) -> Callable[..., None]:
    """Return a `save()` that raises the error that `error` makes of the learner."""
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        if found := error(self):
            raise found
        original(self, *args, **options)

    return save


class TestCommonCause:
    """Given more learners than a batch takes, whose code raises an error."""

    @pytest.fixture(autouse=True)
    def learners(self, batch_size: Callable[[int], None]) -> None:
        batch_size(120)
        unit = factories.store_row("unit", dirty=False)
        Unit(id=unit.id, school_id=factories.SCHOOL_ID, name="Unit").save_base(raw=True)
        Unit.objects.update(_morango_dirty_bit=False)
        rows = [factories.build_store_row("learner", unit=unit, username=f"name-{n}") for n in range(240)]
        Store.objects.bulk_create(rows)

    @pytest.mark.parametrize(
        "error",
        [
            lambda learner: ServiceDownError("the service can't be reached"),
            lambda learner: ConnectionRefusedError(111, "Connection refused"),
            lambda learner: RuntimeError(f"no service for {learner.id}"),
        ],
    )
    def test_run_ends_where_all_records_fail_alike(
        self, monkeypatch: pytest.MonkeyPatch, error: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        waiting = dirty_ids()
        monkeypatch.setattr(Learner, "save", failing(error))

        with pytest.raises(SystemicError, match=r"All 120 records of batch 1/1 of run \d+ failed with one"):
            deserialize()

        # Then nothing was done, and one line of the log says what it is
        run = Run.objects.get()
        assert run.state == Run.State.FAILED
        assert type(error(Learner(id="ab" * 16))).__name__ in run.error
        assert "SAME_ERROR_LIMIT_RECORDS" in run.error
        assert (dirty_ids(), errors()) == (waiting, {})
        assert len([line for line in caplog.records if "Failed to deserialize" in line.message]) == 1

        # ... and once it is mended, all are saved
        monkeypatch.undo()
        assert (deserialize().saved) == 240

    @pytest.mark.parametrize(
        "error",
        [
            lambda learner: ValidationError("It can't be."),
            lambda learner: ValueError("It can't be."),
            lambda learner: KeyError("missing"),
            lambda learner: ServiceDownError(learner.username.translate(LETTERS)),
            lambda learner: None if learner.username.endswith("7") else ServiceDownError("can't be reached"),
        ],
        ids=["validation", "value", "key", "different", "not all"],
    )
    def test_run_goes_on_where_it_may_be_the_records(
        self, monkeypatch: pytest.MonkeyPatch, error: Any
    ) -> None:
        monkeypatch.setattr(Learner, "save", failing(error))

        run = deserialize()

        assert run.state == Run.State.COMPLETED
        assert run.failed == len(errors()) == len(dirty_ids()) > 200

    @pytest.mark.parametrize(("limit", "goes_on"), [(0, True), (120, False), (121, True)])
    def test_setting_says_of_how_many_records(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, limit: int, goes_on: bool
    ) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAME_ERROR_LIMIT_RECORDS": limit}
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("can't be reached")))

        if goes_on:
            deserialize()
        else:
            with pytest.raises(SystemicError):
                deserialize()

        assert Run.objects.get().state == (Run.State.COMPLETED if goes_on else Run.State.FAILED)
        assert len(errors()) == (240 if goes_on else 0)

    def test_records_that_cannot_be_read_are_no_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given records that all hold what no column takes
        for row in Store.objects.filter(model_name="learner"):
            row.serialized = json.dumps({**json.loads(row.serialized), "school_id": 5})
            row.save()
        monkeypatch.setattr(Learner, "clean_fields", lambda *args, **options: None)
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("never again")))

        assert deserialize().failed == 240

    def test_earlier_failure_is_no_reason(self, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
        # Given records that are in error already, all with the same
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("can't be reached")))
        before = settings.MORANGO_CELERY
        settings.MORANGO_CELERY = {**before, "SAME_ERROR_LIMIT_RECORDS": 0}
        assert deserialize().failed == 240
        settings.MORANGO_CELERY = before

        # When they fail again, with or without being asked for, then that is nothing new
        asked: list[tuple[dict[str, Any], int]] = [({}, 240), ({"retry_errors": True}, 240)]
        for options, failed in [*asked, ({"skip_erroring": True}, 0)]:
            run = deserialize(**options)
            assert (run.state, run.failed, run.previous_failures) == (Run.State.COMPLETED, failed, failed)

    def test_failure_in_a_later_pass_is_no_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a batch full of records that fail together with others in the first pass, and then alone
        bad = {f"name-{number}" for number in range(0, 240, 2)}

        def error(learner: Learner) -> Exception | None:
            return ServiceDownError("not this one") if learner.username in bad else None

        monkeypatch.setattr(Learner, "save", failing(error))

        run = deserialize()

        assert (run.state, run.saved, run.failed, run.pass_number) == (Run.State.COMPLETED, 120, 120, 2)
