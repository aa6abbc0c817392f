"""Faults of the database or of this machine end the run, and are blamed on no record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from morango.models import Store

import morango_celery
from morango_celery.models import Run
from tests.integration.in_process import deserialize, sql
from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.support import factories
from tests.support.run_helpers import dirty_ids, errors
from worker.school.models import PROFILE, Learner

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


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
