"""Nonsense on the command line and in headers is refused in a line, never by a traceback."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, ManagementUtility, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morango_celery.models import Batch, Run
from morango_celery.oplog.models import DeadLetter, IngestSource
from morango_celery.runs.report import EXAMPLE_CHARACTERS, failures
from tests.support.factories import store_row
from tests.support.operators import LOOK, logged_in
from tests.support.run_helpers import ago, new_run

pytestmark = pytest.mark.django_db

NO_SECONDS = ["nan", "inf", "-inf", "-1", "0", "1e300", "1e10", "", "x", "1 s"]
NO_NUMBERS = ["nan", "inf", "-1", "0", "1" + "0" * 20, "1" * 5000, "", "x", "1.5"]
NO_AGES = ["nan", "-1d", "0d", "1", "d", "1.5d", "1y", "1 d", "36501d", "9" * 5000 + "d", ""]
NO_TIMES = [*NO_AGES, "yesterday", "2026-13-01", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"]
NO_FILES = ["/nowhere/at/all", "/tmp", "", "x" * 5000, "/dev/null/x"]
NO_NAMES = ["", " ", "a\nb", "a\0b", "\ud800", "x" * 5000]
NO_PREFIXES = ["", " ", "a b", "a\nb", "${user}", "\ud800", "\x1b[2J"]
REFUSED = [
    *((["recover_runs", f"--interval={text}"]) for text in NO_SECONDS),
    *((["recover_runs", f"--heartbeat-file={text}"]) for text in NO_FILES),
    *((["deserialize_status", f"--interval={text}"]) for text in NO_SECONDS),
    *((["deserialize_status", f"--stalled-after={text}"]) for text in NO_SECONDS),
    *((["deserialize_status", f"--last={text}"]) for text in NO_NUMBERS),
    *((["deserialize_status", f"--max-pending={text}"]) for text in NO_SECONDS),
    *((["deserialize_status", f"--timeout={text}"]) for text in NO_SECONDS),
    *((["deserialize_status", f"--max-failed={text}"]) for text in NO_NUMBERS if text != "0"),
    *((["deserialize_status", f"--since={text}"]) for text in NO_TIMES),
    *((["prune_runs", f"--older-than={text}"]) for text in [*NO_AGES, "2026-01-31"]),
    *((["prune_oplog", f"--days={text}"]) for text in (*NO_NUMBERS, "36501")),
    *((["ingest_objects", f"--batch-size={text}", "log"]) for text in [*NO_NUMBERS, "50001"]),
    *((["ingest_objects", f"--source={text}", "log"]) for text in NO_NAMES),
    *((["ingest_objects", "--", text]) for text in ["", "/tmp", "x" * 5000, "a\0b", "/dev/null/x"]),
    *((["prune_payloads", f"--delete={text}"]) for text in ["", "x", "ab" * 31, "AB" * 32, "ab" * 32 + "\n"]),
    *((["deserialize", f"--profile={text}"]) for text in ["", "skool", "\x1b[2J", "x" * 100_000, "\ud800"]),
    *((["explain_models", f"--profile={text}"]) for text in ["", "skool", "\x1b[2J"]),
    *((["deserialize", "--profile=school", f"--filter={text}"]) for text in NO_PREFIXES),
    *(
        ([command, "--", text])
        for command in ("cancel_run", "retry_run", "deserialize_status")
        for text in NO_NUMBERS
    ),
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: " ".join(arguments)[:40])
def test_argument_that_is_nonsense_is_refused_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", *arguments]).execute()

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "error: argument " in said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert len(said) < 10_000


@pytest.mark.parametrize("command", ["record_objects", "prune_payloads", "recover_runs"])
def test_argument_that_a_command_does_not_have_is_refused_with_status_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", command, "--", "nonsense"]).execute()
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_log_that_is_not_named_is_asked_for_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "ingest_objects"]).execute()
    assert ended.value.code == 2
    assert "Name the file to read." in capsys.readouterr().err


def test_heartbeat_file_that_cannot_be_touched_any_more_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(CommandError, match=r"The heartbeat file can't be touched: .*Permission denied"):
        call_command("recover_runs", heartbeat_file=tmp_path / "beat", stdout=StringIO())


@pytest.mark.urls("tests.integration.metrics_urls")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    accept=st.one_of(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
        st.lists(
            st.sampled_from(
                [
                    "application/openmetrics-text",
                    ";",
                    "version=",
                    "q=",
                    "1.0.0",
                    ",",
                    "=",
                    " ",
                    "text/plain",
                    "x",
                    "escaping=",
                ]
            ),
            max_size=12,
        ).map("".join),
    )
)
def test_any_accept_header_of_a_scraper_is_answered(accept: str) -> None:
    assert Client().get("/internal/metrics", HTTP_ACCEPT=accept).status_code == 200


class TestLongErrors:
    """Given a record whose error is as long as a device likes."""

    @pytest.fixture(autouse=True)
    def _record(self) -> None:
        said = {"deserialization_error": "no " * 500_000, "deserialization_exception": "a.B"}
        self.record: Any = store_row("unit", columns=said)

    def test_list_reads_only_what_it_shows(self) -> None:
        client = logged_in("onlooker", LOOK)
        with CaptureQueriesContext(connection) as queries:
            page = client.get("/admin/morango_celery/recordinerror/rows/").content.decode()
        assert ("no " * 100)[:199] + "…" in page
        assert len(page) < 50_000
        selected = [query["sql"] for query in queries if self.record._meta.db_table in query["sql"]]
        whole = '"morango_store"."deserialization_error",'
        assert not [
            sql
            for sql in selected
            if f" {whole}"
            in sql.split(" FROM ")[0].replace("LEFT(" + whole, "").replace("SUBSTR(" + whole, "")
        ]

    def test_page_of_one_row_shows_its_whole_text(self) -> None:
        page = logged_in("onlooker", LOOK).get(
            f"/admin/morango_celery/recordinerror/{self.record.id}/change/"
        )
        assert "no " * 400_000 in page.content.decode()

    def test_example_is_cut(self) -> None:
        (group,) = failures(new_run())
        assert group.example_error == ("no " * 500)[:EXAMPLE_CHARACTERS]


class TestLongTextsOfTheLedger:
    """Given a run, a batch and a dead letter with texts as long as may be."""

    LONG = "no " * 500_000
    SHOWN = '<td class="field-{}">' + ("no " * 40)[:120].rstrip()

    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        self.run = new_run(state=Run.State.FAILED, error=self.LONG, finished_at=ago(1))
        self.batch = Batch.of(self.run, 1, [])
        self.batch.last_error = self.LONG
        self.batch.save()
        source = IngestSource.objects.create(name="a log")
        self.letter = DeadLetter.objects.create(
            source=source, path="a log", offset=0, text=self.LONG, reason=self.LONG
        )

    @pytest.mark.parametrize(
        ("name", "column", "unread"),
        [
            ("run", "error_in_short", ["error"]),
            ("batch", "last_error_in_short", ["last_error"]),
            ("letter", "reason_in_short", ["reason", "text"]),
        ],
    )
    def test_list_reads_only_what_it_shows(self, name: str, column: str, unread: list[str]) -> None:
        meta = getattr(self, name)._meta
        client = logged_in("onlooker", LOOK)
        with CaptureQueriesContext(connection) as queries:
            page = client.get(f"/admin/{meta.label_lower.replace('.', '/')}/").content.decode()
        assert self.SHOWN.format(column) in page
        assert len(page) < 60_000
        selected = [query["sql"].partition(" FROM ")[0] for query in queries]
        for field in unread:
            whole = f'"{meta.db_table}"."{field}"'
            cut = (f"LEFT({whole}, 120)", f"SUBSTR({whole}, 1, 120)")
            left = [sql.replace(cut[0], "").replace(cut[1], "") for sql in selected]
            assert not [sql for sql in left if whole in sql]

    @pytest.mark.parametrize("name", ["run", "batch", "letter"])
    def test_page_of_one_row_shows_its_whole_text(self, name: str) -> None:
        row: Any = getattr(self, name)
        page = logged_in("onlooker", LOOK).get(
            f"/admin/{row._meta.label_lower.replace('.', '/')}/{row.pk}/change/"
        )
        assert page.content.decode().count("no " * 400_000) >= 1
        if name == "letter":
            assert page.content.decode().count("no " * 400_000) == 2
