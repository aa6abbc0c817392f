"""Texts that a device sent reach logs and terminals escaped and cut; the Store keeps them as they are."""

from __future__ import annotations

import re
import traceback
from io import StringIO
from typing import Any

import pytest
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.management import call_command
from django.test import RequestFactory
from morango.models import Store

from morango_celery.admin.messages import errors_as_messages
from morango_celery.errors import InvalidMessageError, UsageError
from morango_celery.messaging.events import describe
from morango_celery.metrics.collector import exposed
from morango_celery.models import Run
from morango_celery.printable import make_printable, printable, printable_lines
from morango_celery.tasks import start_run
from morango_celery.worker.guards import errors_end_run
from tests.support import factories
from tests.support.run_helpers import carry_out, new_run

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
def test_control_characters_of_terminals_are_escaped(text: str, shown: str) -> None:
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
    with pytest.raises(SystemExit):
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


LONG = HOSTILE + "y" * 1_000_000


def require_harmless(text: str) -> None:
    """No control character but the ends of lines, none of which is forged, and no long text."""
    assert not FORBIDDEN.search(text)
    assert not re.search("^2026-01-01", text, re.MULTILINE)
    assert all(len(line) < 10_000 for line in text.splitlines())


def test_lines_stay_lines_and_are_as_few_as_an_operator_reads() -> None:
    assert printable_lines("one\ntwo\x1b\n") == "one\ntwo\\x1b"
    shown = printable_lines("x\n" * 1_000)
    assert shown.endswith("\n[... 980 more lines]")


def test_error_that_others_log_is_harmless_with_all_that_it_was_raised_for() -> None:
    error, cause = RuntimeError(LONG), ValueError(LONG, 5)
    error.__cause__ = cause
    make_printable(error)
    said = "".join(traceback.format_exception(error))
    assert cause.args[1] == 5
    assert not FORBIDDEN.search(said)
    assert len(said) < 20_000


@pytest.mark.django_db
def test_run_that_fails_for_a_hostile_text_says_it_harmlessly(caplog: pytest.LogCaptureFixture) -> None:
    run = new_run()
    Run.objects.filter(pk=run.pk).update(profile=HOSTILE[:40])
    with pytest.raises(RuntimeError) as raised, errors_end_run(run.pk):
        raise RuntimeError(LONG)
    run.refresh_from_db()
    require_harmless("".join(traceback.format_exception_only(raised.value)).replace("\n2026", "\n 2026"))
    assert "CRITICAL forged" in run.error
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("deserialize_status", run.pk, stdout=out)
    with pytest.raises(SystemExit):
        call_command("deserialize_status", stdout=out)
    logged = [record.getMessage() for record in caplog.records]
    for text in (out.getvalue(), describe(run), str(run), *logged):
        require_harmless(text)
    assert len(run.error) < 10_000


@pytest.mark.django_db
def test_labels_of_metrics_are_harmless_and_stay_apart() -> None:
    profiles = ["a\x1b", "a\\x1b", HOSTILE[:40]]
    for profile in profiles:
        factories.store_row("unit", profile=profile)
    page = exposed("")[0].decode()
    require_harmless(page)
    samples = re.findall("^morango_celery_dirty_records{.*} 1.0", page, re.MULTILINE)
    assert len(samples) == len(set(samples)) == len(profiles)


@pytest.mark.django_db
def test_messages_of_the_admin_are_harmless() -> None:
    request = RequestFactory().get("/")
    storage: Any = CookieStorage(request)
    request._messages = storage  # type: ignore[attr-defined]  # as Django's middleware does

    def fail() -> None:
        raise UsageError(LONG)

    with errors_as_messages(request):
        fail()
    (message,) = storage._queued_messages
    require_harmless(str(message))


@pytest.mark.parametrize("argument", [LONG, {"x": LONG}, [LONG]])
def test_refused_argument_is_shown_harmlessly(argument: object) -> None:
    with pytest.raises(InvalidMessageError) as refused:
        start_run(argument)
    require_harmless(str(refused.value))
    with pytest.raises(InvalidMessageError) as refused:
        start_run(1, **{LONG: 1})
    require_harmless(str(refused.value))
