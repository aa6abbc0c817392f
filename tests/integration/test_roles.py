"""The roles of the deployment kit: each may do its work on a real PostgreSQL, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection
from morango.models import Store

import morango_celery
from morango_celery.metrics.figures import figures
from morango_celery.models import Run
from tests.support import roles
from tests.support.factories import fill_store, store_row
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


@pytest.fixture(autouse=True)
def _roles(transactional_db: None) -> Iterator[None]:
    with roles.roles():
        yield


@contextmanager
def session_of(role: str) -> Iterator[None]:
    """Let this session have a role's privileges, and no others."""
    roles.execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        roles.execute("RESET ROLE")


def refused(statement: str) -> bool:
    try:
        roles.execute(statement)
    except ProgrammingError as error:
        return "permission denied" in str(error) or "must be owner" in str(error)
    return False


def test_monitoring_sees_runs_and_numbers_and_no_record() -> None:
    # Given a run that is completed, with a record in error, and one that waits
    fill_store(10)
    store_row("unit", name=None)
    done = morango_celery.deserialize(PROFILE, in_process=True)
    waiting = Run.objects.create(profile=PROFILE)

    with session_of(roles.MONITORING):
        # Then all that monitors ask for is answered
        assert list(figures())
        for run in (done, waiting):
            shown = StringIO()
            with pytest.raises(SystemExit) as ended:  # no worker lives, and it says so
                call_command("deserialize_status", str(run.pk), "--max-failed=0", stdout=shown)
            assert ended.value.code in (6, 7)
            assert f"Run {run.pk} of {PROFILE}" in shown.getvalue()
        assert list(Store.objects.filter(dirty_bit=True).values_list("model_name", flat=True)) == ["unit"]

        # ... and nothing of a record's content, nor any change
        assert refused("SELECT serialized FROM morango_store")
        assert refused("SELECT conflicting_serialized_data FROM morango_store")
        assert refused("SELECT username FROM school_learner")
        assert refused("UPDATE morango_celery_run SET error = ''")


@pytest.mark.parametrize("may_read_parents", [True, False])
def test_monitoring_sees_roots_of_errors_as_far_as_it_may_read_them(may_read_parents: bool) -> None:
    # Given a record whose target is missing, and the present grants, or those of 0.2.0
    store_row("lesson", unit_id="ab" * 16)
    done = morango_celery.deserialize(PROFILE, in_process=True)
    if not may_read_parents:
        roles.execute("REVOKE SELECT (_self_ref_fk) ON morango_store FROM morango_monitoring")
    shown = StringIO()
    with session_of(roles.MONITORING), suppress(SystemExit):  # no worker lives, and it says so
        call_command("deserialize_status", str(done.pk), stdout=shown)
    assert "1 x" in shown.getvalue()
    assert ("because of unit abab" in shown.getvalue()) == may_read_parents


def test_application_uses_tables_that_the_migration_makes_later_and_makes_none() -> None:
    with session_of(roles.MIGRATION):
        roles.execute("CREATE TABLE later (id serial PRIMARY KEY, name text)")
        roles.execute("ALTER TABLE school_unit ADD COLUMN later text")
    with session_of(roles.APPLICATION):
        roles.execute(
            "INSERT INTO later (name) VALUES ('one'); UPDATE later SET name = 'two'; DELETE FROM later"
        )
        assert refused("CREATE TABLE another (id int)")
        assert refused("DROP TABLE later")
        assert refused("ALTER TABLE school_unit ADD COLUMN another text")
        assert refused("TRUNCATE school_unit")
    with session_of(roles.MONITORING):
        assert refused("SELECT * FROM later")

    roles.execute("DROP TABLE later; ALTER TABLE school_unit DROP COLUMN later")


def test_roles_can_do_nothing_to_the_cluster_and_the_statements_may_run_again() -> None:
    roles.execute(roles.GRANTS)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND rolcanlogin AND NOT"
            " (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) ORDER BY 1",
            [list(roles.ROLES)],
        )
        assert [name for (name,) in cursor.fetchall()] == sorted(roles.ROLES)
        cursor.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        assert cursor.fetchall() == [(roles.MIGRATION,)]
