"""Texts that a device sent reach logs and terminals escaped and cut; the Store keeps them as they are."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.management import call_command
from morango.models import Store

from morango_celery.printable import printable
from tests import factories
from tests.integration.ledger import carry_out

HOSTILE = "a\n2026-01-01 CRITICAL forged\r\x1b[2J\x9b31m\u202e\u2028\x7f"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, also ä and 漢", "plain, also ä and 漢"),
        ("a\nb\tc\x1b[0m", "a\\nb\\tc\\x1b[0m"),
        ("\u202e\u2028\ud800\x7f\x9b", "\\u202e\\u2028\\ud800\\x7f\\x9b"),
        ("x" * 2005, "x" * 2000 + "[... 5 more characters]"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.django_db
def test_hostile_texts_reach_neither_log_nor_terminal_raw(caplog: pytest.LogCaptureFixture) -> None:
    # Given a model name and a foreign key that forge lines, and one that is long
    factories.store_row(HOSTILE[:40], partition="p")
    factories.store_row("lesson", unit_id=HOSTILE)
    factories.store_row("lesson", unit_id="y" * 1_000_000)

    run, _ = carry_out()

    # Then the log and the command show one line each, and the Store what Morango would write
    assert run.failed == 3
    lines = [record.getMessage() for record in caplog.records]
    out = StringIO()
    call_command("deserialize_status", run.pk, stdout=out)
    for text in (*lines, out.getvalue()):
        assert not FORBIDDEN.search(text)
        assert len(text) < 10_000
    assert not any("\n" in line for line in lines)
    assert not re.search("^2026-01-01", out.getvalue(), re.MULTILINE)
    assert (
        max(len(text or "") for text in Store.objects.values_list("deserialization_error", flat=True))
        > 900_000
    )
