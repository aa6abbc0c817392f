"""``manage.py prune_payloads``: it removes expired payloads, and no others."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command

from morango_celery.payloads import payload_store
from morango_celery.payloads.models import Payload

pytestmark = pytest.mark.django_db(transaction=True)


def prune(*arguments: str) -> str:
    output = StringIO()
    call_command("prune_payloads", *arguments, stdout=output)
    return output.getvalue().strip()


def test_expired_values_are_removed_and_counted() -> None:
    store = payload_store()
    over, needed = store.put("over", 0), store.put("needed")

    assert prune() == "1 payloads removed, 7 bytes."
    assert set(Payload.objects.values_list("key", flat=True)) == {needed.sha256} != {over.sha256}
    assert prune() == "0 payloads removed, 0 bytes."


def test_more_is_removed_than_fits_in_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morango_celery.payloads.database.ROWS_PER_DELETE", 3)
    for number in range(10):
        payload_store().put(number, 0)

    so_far: list[int] = []
    pruned = payload_store().prune(lambda pruned: so_far.append(pruned.blobs))

    assert pruned == (10, 20)
    assert so_far == [3, 6, 9, 10]


def test_one_value_can_be_deleted() -> None:
    store = payload_store()
    deleted, other = store.put("one"), store.put("other")

    assert prune("--delete", deleted.sha256) == "1 parts deleted."
    assert [payload.key for payload in Payload.objects.all()] == [other.sha256]
    assert str(Payload.objects.get()) == f"payload {other.sha256}"
