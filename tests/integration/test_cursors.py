"""Reading of rows a few at a time, through any pooler or driver."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store

from morango_celery.reading.cursors import pages, stream
from tests.support import factories

pytestmark = pytest.mark.django_db(transaction=True)


def open_cursors() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE name <> ''")
        (number,) = cursor.fetchone()
    return int(number)


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("disabled", [False, True])
def test_transaction_reads_with_the_servers_cursor_also_where_django_may_not(
    monkeypatch: pytest.MonkeyPatch, disabled: bool
) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", disabled)
    factories.fill_store(100)
    with transaction.atomic():
        rows = stream(Store.objects.values_list("id", flat=True), 10)
        first = next(rows)
        assert open_cursors() == 1
        assert len({first, *rows}) == 100
        assert open_cursors() == 0


@pytest.mark.needs_postgresql
def test_django_chooses_the_cursor_outside_of_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    factories.fill_store(20)
    rows = stream(Store.objects.all(), 10)
    next(rows)
    assert open_cursors() == 0
    assert len(list(rows)) == 19


@pytest.mark.parametrize(("rows", "queries"), [(0, 1), (1, 2), (10, 2), (11, 3)])
def test_pages_are_a_query_each_and_have_every_row_once(rows: int, queries: int) -> None:
    for _ in range(rows):
        factories.store_row("unit")
    with CaptureQueriesContext(connection) as captured:
        found = [row.pk for row in pages(Store.objects.all(), 10)]
    assert found == sorted(Store.objects.values_list("pk", flat=True))
    assert (len(found), len(captured)) == (rows, queries)
