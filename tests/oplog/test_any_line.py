"""Lines of any content: each is applied or kept as a dead letter, and the log goes on behind it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from morango_celery.oplog import lines
from morango_celery.oplog.models import DeadLetter, IngestPosition, IngestSource
from morango_celery.oplog.retry import retry_dead_letters
from tests.library.logs import append, empty_library, ingest, letters, positions, save
from tests.library.models import Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)

LONG = "m" * 300
DEEP = 10_000
AS_DEEP_AS_JSON_GOES = 900
BOOK = f"{1:032x}"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\x1b[2J", "\u2028", "x" * 300, "x" * 10_000, "{}"]
    ),
)
numbers = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 10**4200]),
    st.floats(),
    st.sampled_from([1e308, float("nan"), float("inf")]),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
models = st.one_of(
    st.sampled_from(["library.shelf", "library.book", "library.author", "library.review", "library.annex"]),
    st.sampled_from(["library.Shelf", "LIBRARY.SHELF", "library.oldbook", "library.local", "library.hen"]),
    st.sampled_from([LONG, f"library.{LONG}", f"{LONG}.shelf", "library.shelf\x00", "\ud800", "a.b.c", ""]),
)
names = st.one_of(
    st.sampled_from(["name", "inside", "title", "shelf", "author", "successor", "tags", "friends", "about"]),
    st.sampled_from(["pages", "price", "bought_at", "lending", "cover", "seen_from", "born", "pk", "books"]),
    texts,
)
objects = st.fixed_dictionaries(
    {"model": models}, optional={"pk": values, "fields": st.dictionaries(names, values, max_size=5)}
)


def as_line(time: str, operation: str, document: Any, escaped: bool) -> bytes:
    text = json.dumps(document, ensure_ascii=escaped)
    return f"{time} {operation} {text}".encode("utf-8", "surrogatepass")


sound_frame = st.builds(
    as_line,
    st.just("1.5"),
    st.sampled_from(["SAVE", "SAVE", "DELETE"]),
    st.lists(objects, min_size=1, max_size=3),
    st.booleans(),
)
any_frame = st.builds(
    as_line,
    st.sampled_from(["1.5", "nan", "1e999", "x", ""]) | texts,
    st.sampled_from(["SAVE", "DELETE", "save", LONG]),
    st.lists(objects | values, max_size=3) | values,
    st.booleans(),
)
whole = [
    save("book", BOOK, title="ä", tags=["t"], author=["A"], about={"a": [1]}, price="1.50"),
    save("annex", 5, size=3),
    save("shelf", 7, name="\U0001f4da", inside=8),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a valid line with some bytes replaced, left out or inserted."""
    content = bytearray(draw(st.sampled_from(whole)).encode())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(content)


any_line = (sound_frame | sound_frame | any_frame | damaged() | st.binary(max_size=60)).map(
    lambda content: content.replace(b"\n", b"_")
)


def start_anew(log: Path) -> None:
    log.unlink(missing_ok=True)
    for model in (DeadLetter, IngestPosition, IngestSource):
        model._base_manager.all().delete()
    empty_library()


def goes_on_behind(log: Path, content: bytes) -> None:
    """Ingest the line behind a letter and among good lines, and retry the remaining letters."""
    append(log, "rubbish", save("tag", "before"))
    ingest(log)
    with log.open("ab") as file:
        file.write(content + b"\n")
    append(log, save("tag", "behind"))
    before = len(letters())
    progress = ingest(log)
    assert positions()[0][1] == log.stat().st_size
    assert set(Tag.objects.values_list("pk", flat=True)) >= {"before", "behind"}
    assert progress.dead_letters == len(letters()) - before
    retried = retry_dead_letters()
    assert retried.left == len(letters())


EVERY = os.environ.get("OPLOG_LINES")


@settings(
    max_examples=int(EVERY or 60),
    deadline=None,
    derandomize=not EVERY,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(content=any_line)
def test_any_line_is_applied_or_kept(log: Path, content: bytes) -> None:
    start_anew(log)
    goes_on_behind(log, content)


AWKWARD = {
    "a model of 300 characters": save(LONG, 1, name="a"),
    "an app of 300 characters": f'1.5 SAVE [{{"model": "{LONG}.shelf", "pk": 1}}]',
    "a key of 10,000 digits": f'1.5 SAVE [{{"model": "library.shelf", "pk": 1{"0" * 10_000}}}]',
    "a key that no column holds": save("shelf", 10**400, name="a"),
    "infinity": '1.5 SAVE [{"model": "library.shelf", "pk": Infinity, "fields": {"name": "a"}}]',
    "no number": '1.5 SAVE [{"model": "library.shelf", "pk": NaN, "fields": {"name": "a"}}]',
    "a large float": '1.5 SAVE [{"model": "library.shelf", "pk": 1e308, "fields": {"name": "a"}}]',
    "deep": "1.5 SAVE " + nested(DEEP),
    "a deep key": f'1.5 SAVE [{{"model": "library.shelf", "pk": {nested(AS_DEEP_AS_JSON_GOES)}}}]',
    "a deep reference": '1.5 SAVE [{"model": "library.shelf", "pk": 1, "fields": '
    f'{{"name": "a", "inside": {nested(AS_DEEP_AS_JSON_GOES)}}}}}]',
    "a deep value": f'1.5 SAVE [{{"model": "library.book", "pk": "{BOOK}", "fields": '
    f'{{"title": "a", "about": {nested(AS_DEEP_AS_JSON_GOES)}}}}}]',
    "a deep deletion": f'1.5 DELETE [{{"model": "library.shelf", "pk": {nested(AS_DEEP_AS_JSON_GOES)}}}]',
    "a NUL in the key": save("tag", "a\x00"),
    "a NUL in the model": save("shelf\x00", 1),
    "half a pair in the key": save("tag", "\ud800"),
    "half a pair in the model": save("\ud800", 1),
    "a long key": save("tag", "k" * 10_000),
    "a long reference": save("book", BOOK, title="a", tags=["k" * 10_000]),
    "a key that is an object": save("shelf", {"a": [1]}, name="a"),
    "references that are objects": save("book", BOOK, title="a", tags=[{"a": 1}], shelf={"b": 2}),
    "10 MB that no column holds": save("shelf", 1, name="x" * 10_000_000),
    "10 MB that are no JSON": "1.5 SAVE [" + "x" * 10_000_000,
}


@pytest.mark.parametrize("line", AWKWARD.values(), ids=AWKWARD)
def test_awkward_line_is_kept(log: Path, line: str, request: pytest.FixtureRequest) -> None:
    goes_on_behind(log, line.encode())
    assert not Shelf.objects.exists() or "sqlite" in request.config.getoption("database")


@pytest.mark.parametrize(
    "content",
    [
        b"1.5 SAVE \xff\x00",
        b'1.5 SAVE [{"model": "library.shelf", "pk": 1, "fields": {"name": "a\xff"}}]',
        # Their escaped form would be JSON
        b'1.5 SAVE [{"model": "library.shelf", "pk": 1, "fields": {"name": "a\\\xff"}}]',
        b'1.5 SAVE [{"model": "library.shelf", "pk": 1, "fields": {"name": "a\\\x00"}}]',
    ],
)
def test_bytes_that_are_no_text_are_kept_escaped_and_never_applied(log: Path, content: bytes) -> None:
    goes_on_behind(log, content)
    assert DeadLetter.objects.order_by("pk").last().text == repr(content)  # type: ignore[union-attr]
    assert not Shelf.objects.exists()


def test_line_that_is_too_long_to_be_kept_is_left_out_but_for_its_beginning(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 5000)
    whole = save("shelf", 1, name="a")
    longest, longer = whole + " " * (5000 - len(whole)), whole + " " * (5001 - len(whole))
    goes_on_behind(log, longer.encode())
    letter = DeadLetter.objects.get(offset__gt=0)
    assert letter.reason == "It is 5,001 bytes long; no more than 5,000 are read of a line."
    assert letter.text == repr(longer[:1000].encode())
    assert not Shelf.objects.exists()
    goes_on_behind(log, longest.encode())
    assert Shelf.objects.exists()


def test_line_that_is_too_long_waits_for_its_end(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 5000)
    append(log, "x" * 20_000, end="")
    assert ingest(log).lines == 0
    append(log, "x", save("tag", "behind"))
    assert ingest(log).dead_letters == 1
    assert Tag.objects.exists()


def test_log_whose_name_is_no_text_is_ingested(tmp_path: Path, capsys: Any) -> None:
    log = tmp_path / os.fsdecode(b"chang\xe9s.log")
    append(log, "rubbish", save("tag", "behind"))
    call_command("ingest_objects", str(log))
    assert DeadLetter.objects.get().path.endswith("chang\\udce9s.log")
    call_command("ingest_objects", str(log))
    assert "0 lines" in capsys.readouterr().out


@pytest.mark.needs_postgresql
def test_line_that_the_database_cancels_each_time_is_kept(log: Path) -> None:
    """Nobody can tell if it is the line's fault; but the log goes on."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.name = 'slow' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON library_shelf FOR EACH ROW EXECUTE FUNCTION take_long()"
        )
        cursor.execute("SET statement_timeout = '200ms'")
    try:
        goes_on_behind(log, save("shelf", 1, name="slow").encode())
        assert "statement timeout" in letters()[-1][1]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")
            cursor.execute("DROP TRIGGER slow ON library_shelf")
            cursor.execute("DROP FUNCTION take_long")
