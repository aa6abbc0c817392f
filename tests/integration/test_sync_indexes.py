"""`manage.py create_sync_indexes`, the use of its indexes, and the check that recommends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from morango.models.certificates import Filter

from morango_celery.checks import indexes as checks
from morango_celery.db.dialect import dialect
from morango_celery.management.commands import create_sync_indexes as command
from morango_celery.reading.indexes import SyncIndex, states, sync_indexes
from morango_celery.serialization import edits, serialize_into_store
from tests.support.factories import SCHOOL_ID
from tests.support.sessions import other_session, sessions, until_waiting
from worker.school.models import PROFILE, Unit

pytestmark = pytest.mark.django_db(transaction=True)
postgresql = pytest.mark.needs_postgresql

INDEX = SyncIndex("school_unit", "_morango_partition", "_morango_dirty_bit")
OTHERS = SyncIndex("school_lesson", "_morango_partition", "_morango_dirty_bit")


@pytest.fixture(autouse=True)
def _without_indexes() -> Iterator[None]:
    """Leave the tables as they were: others' tests have them without."""
    yield
    drop_all()


@pytest.fixture
def two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only two, to be quick."""
    for module in (command, checks):
        monkeypatch.setattr(module, "sync_indexes", lambda: [INDEX, OTHERS])


def execute(sql: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


def create_by_hand() -> None:
    execute(INDEX.creation())


def drop_all() -> None:
    for state in states(sync_indexes()):
        if state.exists:
            execute(state.removal())


def create(**options: Any) -> str:
    out = StringIO()
    call_command("create_sync_indexes", stdout=out, **options)
    return out.getvalue()


def are_valid() -> list[bool]:
    return [state.is_valid for state in states([INDEX, OTHERS])]


def test_every_table_that_a_sync_looks_through_gets_its_index_once() -> None:
    wanted = sync_indexes()
    assert {index.table for index in wanted} >= {"school_unit", "school_attempt", "morango_store"}
    assert f"{len(wanted)} created, of {len(wanted)}.\n" in create()
    assert all(state.is_valid for state in states(wanted))
    assert f"0 created, of {len(wanted)}.\n" in create()
    assert f"{len(wanted)} removed, of {len(wanted)}.\n" in create(remove=True)
    assert not any(state.exists for state in states(wanted))
    assert f"0 removed, of {len(wanted)}.\n" in create(remove=True)


@postgresql
@pytest.mark.usefixtures("two_tables")
def test_index_that_was_left_unfinished_is_made_again() -> None:
    create()
    invalidate(INDEX)
    assert are_valid() == [False, True]
    told = create()
    assert "left unfinished" in told
    assert "1 created, of 2.\n" in told
    assert are_valid() == [True, True]


def invalidate(index: SyncIndex) -> None:
    """Leave the index as PostgreSQL leaves one whose creation was cut."""
    execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)", index.name)


@postgresql
@pytest.mark.usefixtures("two_tables")
def test_index_that_another_session_creates_is_left_to_it() -> None:
    with other_session() as writer, sessions() as start:
        writer("BEGIN")
        writer("LOCK TABLE school_unit IN ROW EXCLUSIVE MODE")
        creation = start(lambda _: create_by_hand())
        until_waiting()
        for remove in (False, True):
            with pytest.raises(CommandError, match=r"created at this moment.*session \d+"):
                create(remove=remove)
        writer("COMMIT")
        creation.result()
    assert are_valid() == [True, False]


@postgresql
@pytest.mark.usefixtures("two_tables")
@pytest.mark.parametrize(
    ("mode", "is_begun"), [("ACCESS EXCLUSIVE", False), ("ROW EXCLUSIVE", True)], ids=["none", "half"]
)
def test_lock_that_is_not_got_in_time_is_an_error_and_the_next_call_goes_on(
    mode: str, is_begun: bool
) -> None:
    with other_session() as writer:
        writer("BEGIN")
        writer(f"LOCK TABLE school_lesson IN {mode} MODE")
        execute("SET lock_timeout = '50ms'")
        try:
            with pytest.raises(CommandError, match=r"(?s)school_lesson: .*quieter time"):
                create()
        finally:
            execute("RESET lock_timeout")
    assert are_valid() == [True, False]
    told = create()
    assert ("left unfinished" in told) == is_begun
    assert "1 created, of 2.\n" in told
    assert are_valid() == [True, True]


@postgresql
@pytest.mark.usefixtures("two_tables")
def test_user_who_does_not_own_the_tables_is_told_who_may() -> None:
    execute("CREATE ROLE stranger")
    execute("SET ROLE stranger")
    try:
        with pytest.raises(CommandError, match=r"(?s)must be owner.*Only the owner of a table"):
            create()
    finally:
        execute("RESET ROLE")
        execute("DROP ROLE stranger")
    assert are_valid() == [False, False]


def test_table_that_is_missing_is_for_migrate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "sync_indexes", lambda: [SyncIndex("nowhere", "a", "b")])
    with pytest.raises(CommandError, match=r"no table nowhere\. Run `manage\.py migrate`"):
        create()


@pytest.mark.usefixtures("two_tables")
def test_transaction_is_refused() -> None:
    with transaction.atomic(), pytest.raises(CommandError, match="within a transaction"):
        create()
    assert are_valid() == [False, False]


@postgresql
def test_view_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    execute("CREATE VIEW seen AS SELECT * FROM school_unit")
    monkeypatch.setattr(command, "sync_indexes", lambda: [SyncIndex("seen", "name", "_morango_dirty_bit")])
    try:
        assert "left out" in create()
    finally:
        execute("DROP VIEW seen")


def fill(rows: int, *, dirty: bool) -> None:
    """Write units of many schools."""
    execute(
        "INSERT INTO school_unit (id, _morango_dirty_bit, _morango_source_id, _morango_partition, name,"
        " school_id) SELECT md5(n::text)::uuid, %s, n::text, md5((n %% 50)::text) || ':units', 'unit',"
        " md5('')::uuid FROM generate_series(1, %s) AS n",
        dirty,
        rows,
    )


def sequential_scans() -> int:
    """Return how often a table of units was read from end to end."""
    execute("SELECT pg_stat_force_next_flush()")
    execute("SELECT pg_stat_clear_snapshot()")
    ((scans,),) = execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'school_unit'")
    return int(scans)


FILTERS = [None, Filter(SCHOOL_ID), Filter(f"{SCHOOL_ID}:units\n{SCHOOL_ID}:l\n{'ab' * 16}")]


@postgresql
@pytest.mark.usefixtures("two_tables")
@pytest.mark.parametrize("statistics", ["true", "of a time when all rows were edited"])
def test_with_its_index_no_serialization_reads_a_table_from_end_to_end(
    statistics: str, settings: Any
) -> None:
    settings.MORANGO_TEST_POSTGRESQL = False
    serialize_into_store(PROFILE)  # which gives the instance its identity
    fill(20_000, dirty=statistics != "true")
    execute("VACUUM ANALYZE school_unit")
    execute("UPDATE school_unit SET _morango_dirty_bit = false WHERE _morango_dirty_bit")
    before = sequential_scans()
    serialize_into_store(PROFILE)
    assert sequential_scans() > before  # so it is for lack of one
    create()
    before = sequential_scans()
    for sync_filter in FILTERS:
        serialize_into_store(PROFILE, sync_filter)
        if statistics != "true":
            continue  # the planner expects all rows then, and more is asked for than the first
        edited = Unit.objects.create(name="edited", school_id=SCHOOL_ID)
        serialize_into_store(PROFILE, sync_filter)
        assert not Unit.objects.get(pk=edited.pk)._morango_dirty_bit
    assert sequential_scans() == before


@pytest.mark.usefixtures("two_tables")
def test_look_for_edits_uses_the_index() -> None:
    create()
    sql, _, parameters = edits._search(PROFILE, Filter(SCHOOL_ID))
    explain = "EXPLAIN" if not dialect().runs_in_process else "EXPLAIN QUERY PLAN"
    plan = "\n".join(str(row) for row in execute(f"{explain} {sql}", *parameters))
    assert INDEX.name in plan, plan


def messages() -> list[str]:
    return [
        message.msg
        for message in run_checks(tags=["database"], databases=["default"])
        if message.id == "morango_celery.W010"
    ]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(checks, "LARGE_ROWS", 1_000)
    fill(1_000, dirty=False)
    execute("ANALYZE school_unit")
    return 1_000


@postgresql
@pytest.mark.usefixtures("two_tables")
def test_check_recommends_an_index_that_a_large_table_lacks(large: int) -> None:
    (message,) = messages()
    assert "school_unit (about 1,000 rows)" in message
    assert "school_lesson" not in message
    create()
    assert messages() == []
    invalidate(INDEX)
    assert len(messages()) == 1


@postgresql
@pytest.mark.usefixtures("two_tables")
def test_check_reads_catalogs_alone(large: int) -> None:
    before = sequential_scans()
    messages()
    assert sequential_scans() == before


@pytest.mark.usefixtures("two_tables")
def test_check_asks_no_database_unless_django_lets_it(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    with django_assert_num_queries(0):
        run_checks(tags=["morango_celery"])
        checks.check_sync_indexes(databases=None)
