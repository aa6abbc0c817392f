"""Recording of changes of configured models: content, moment and order of the lines."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from typing_extensions import override

from morango_celery.oplog import logfile, recorder
from morango_celery.oplog.lines import Operation
from morango_celery.oplog.logfile import write_out
from morango_celery.oplog.models import OutboxChange, RecorderFile
from tests.library.logs import ingest, ingested, save
from tests.library.models import Annex, Author, Book, Local, OldBook, Place, Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)


def lines(log: Path) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Operation, and model and key of each object."""
    found = []
    for text in log.read_text().splitlines() if log.exists() else []:
        time, operation, document = text.split(" ", 2)
        assert abs(float(time) - datetime.datetime.now(datetime.UTC).timestamp()) < 60
        objects = [(data["model"].removeprefix("library."), data["pk"]) for data in json.loads(document)]
        found.append((operation, objects))
    return found


def last_fields(log: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(log.read_text().splitlines()[-1].split(" ", 2)[2])[-1]["fields"]
    return fields


def test_saving_and_deleting_is_recorded(recorded: Path) -> None:
    shelf = Shelf.objects.create(pk=1, name="a")
    shelf.name = "b"
    shelf.save()
    assert last_fields(recorded) == {"name": "b", "inside": None}
    shelf.delete()
    about = [("shelf", 1)]
    assert lines(recorded) == [("SAVE", about), ("SAVE", about), ("DELETE", about)]


def test_models_that_were_not_chosen_are_not_recorded(recorded: Path) -> None:
    shelf = Shelf.objects.create(pk=1, name="a")
    Local.objects.create(shelf=shelf)
    assert lines(recorded) == [("SAVE", [("shelf", 1)])]


def test_rolled_back_change_is_not_recorded(recorded: Path) -> None:
    with transaction.atomic():
        Shelf.objects.create(pk=1, name="a")
        assert not recorded.exists()  # not before the commit
        with transaction.atomic():
            Shelf.objects.create(pk=2, name="b")
            transaction.set_rollback(True)
        Shelf.objects.create(pk=3, name="c")
    with transaction.atomic():
        Shelf.objects.create(pk=4, name="d")
        transaction.set_rollback(True)
    assert lines(recorded) == [("SAVE", [("shelf", 1)]), ("SAVE", [("shelf", 3)])]
    assert not OutboxChange.objects.exists()


def test_raw_saves_and_ingested_objects_are_not_recorded(recorded: Path, tmp_path: Path) -> None:
    Shelf(pk=1, name="a").save_base(raw=True)
    other = tmp_path / "other.log"
    uid = f"{1:032x}"
    ingested(other, [save("tag", "a"), save("book", uid, title="x", tags=["a"], friends=[uid]), "rubbish"])
    ingested(other, ["1 DELETE " + json.dumps([{"model": "library.shelf", "pk": 1}])])
    assert lines(recorded) == []
    assert not Shelf.objects.exists()


def test_line_has_the_stored_values_rather_than_assigned_ones(recorded: Path) -> None:
    book = Book.objects.create(
        title="a", pages=3, bought_at=datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC)
    )
    assert last_fields(recorded)["bought_at"] == "2026-01-02T03:04:05.678901Z"

    book.title, book.pages = "not saved", F("pages") + 4
    book.save(update_fields=["pages"])
    assert (last_fields(recorded)["title"], last_fields(recorded)["pages"]) == ("a", 7)

    for found in Book.objects.only("title"):
        found.title = "b"
        found.save()
    assert (last_fields(recorded)["title"], last_fields(recorded)["pages"]) == ("b", 7)

    Author.objects.create(name="Ada", born="1815-12-10")  # as text
    assert last_fields(recorded)["born"] == "1815-12-10"


def test_many_to_many_values_are_recorded_from_both_sides(recorded: Path) -> None:
    tag, other = Tag.objects.create(slug="a"), Tag.objects.create(slug="b")
    book = Book.objects.create(title="x")
    changes: list[tuple[Callable[[], Any], list[str]]] = [
        (lambda: book.tags.add(tag), ["a"]),
        (lambda: other.book_set.add(book), ["a", "b"]),
        (lambda: book.tags.remove(tag), ["b"]),
        (lambda: other.book_set.clear(), []),
        (lambda: tag.book_set.set([book]), ["a"]),
        (lambda: book.tags.clear(), []),
        (lambda: OldBook.objects.get().tags.add(tag), ["a"]),
        (lambda: tag.book_set.remove(book), []),
    ]
    for change, expected in changes:
        change()
        assert sorted(last_fields(recorded)["tags"]) == expected


def test_objects_of_several_tables_and_proxies_are_recorded_whole(recorded: Path) -> None:
    annex = Annex.objects.create(pk=1, town="A", size=2)
    annex.delete()
    chain = [("place", 1), ("branch", 1), ("annex", 1)]
    assert lines(recorded)[0] == ("SAVE", chain)
    assert {objects[0] for operation, objects in lines(recorded) if operation == "DELETE"} == set(chain)
    book = OldBook.objects.create(title="old")
    assert lines(recorded)[-1] == ("SAVE", [("oldbook", str(book.pk))])


def test_natural_keys_are_recorded_on_request(recorded: Path, settings: Any) -> None:
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "NATURAL_KEYS": True}
    author = Author.objects.create(name="Ada")
    Book.objects.create(title="x", author=author)
    assert last_fields(recorded)["author"] == ["Ada"]
    assert '"pk"' not in recorded.read_text().splitlines()[0]


def test_changes_without_signals_can_be_recorded_by_hand(recorded: Path) -> None:
    with transaction.atomic():
        shelves = Shelf.objects.bulk_create([Shelf(pk=n, name="a") for n in range(1, 4)])
        recorder.record(Operation.SAVE, shelves)
    assert lines(recorded) == [("SAVE", [("shelf", n)]) for n in range(1, 4)]


def test_full_file_gets_another_name_and_readers_miss_nothing(recorded: Path, settings: Any) -> None:
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "ROTATE_BYTES": 400}
    for number in range(1, 21):
        Shelf.objects.create(pk=number, name=f"{number:020}")
        if number % 5 == 0:
            assert ingest(recorded).lines == 5
    files = sorted(recorded.parent.iterdir())
    assert len(files) > 5
    assert all(file.stat().st_size <= 400 for file in files)
    assert ingest(recorded, source="late").lines == 20


def test_clock_that_is_set_back_changes_no_order(
    recorded: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(datetime.datetime(2026, 1, 9 - n, tzinfo=datetime.UTC) for n in range(8))

    class Clock(datetime.datetime):
        @classmethod
        @override
        def now(cls, tz: Any = None) -> Any:
            return next(moments)

    monkeypatch.setattr(logfile, "datetime", Clock)
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "ROTATE_BYTES": 1}
    for number in range(5):
        Shelf(pk=1, name=str(number)).save()
    rotated = sorted(file for file in recorded.parent.iterdir() if file != recorded)
    names = [json.loads(file.read_text().split(" ", 2)[2])[0]["fields"]["name"] for file in rotated]
    assert names == ["0", "1", "2", "3"]


def test_lines_wait_while_the_file_cannot_be_written(
    recorded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded.mkdir()  # in its place
    Shelf.objects.create(pk=1, name="a")
    assert "Nothing is lost" in caplog.text
    recorded.rmdir()
    Shelf.objects.create(pk=2, name="b")
    assert lines(recorded) == [("SAVE", [("shelf", 1)]), ("SAVE", [("shelf", 2)])]


@pytest.mark.parametrize("cut", [0, 10, None], ids=["nothing", "half a line", "everything"])
def test_lines_of_a_dead_writer_are_not_written_again(recorded: Path, cut: int | None) -> None:
    # Given a writer that died after it wrote, or while it did, and before it could note that
    Shelf.objects.create(pk=1, name="a")
    before = recorded.read_bytes()
    with transaction.atomic():
        Shelf.objects.create(pk=2, name="b")
        Shelf.objects.create(pk=3, name="c")
        waiting = "".join(f"{text}\n" for text in OutboxChange.objects.values_list("text", flat=True))
        connection.run_on_commit.clear()
    recorded.write_bytes(before + waiting.encode()[:cut])

    # When the next one writes, each line is there once, and whole
    Shelf.objects.create(pk=4, name="d")
    assert lines(recorded) == [("SAVE", [("shelf", n)]) for n in (1, 2, 3, 4)]


def test_foreign_half_line_does_not_spoil_the_next(recorded: Path) -> None:
    recorded.write_text("no newline")
    Shelf.objects.create(pk=1, name="a")
    assert recorded.read_text().startswith("no newline\n")
    assert ingest(recorded).dead_letters == 1


def test_writer_that_dies_within_a_character_spoils_no_other_line(recorded: Path) -> None:
    # Given a writer that died within a line, and the log that others see then
    with transaction.atomic():
        Shelf.objects.create(pk=1, name="ä\U0001f4da")
        connection.run_on_commit.clear()
    waiting = OutboxChange.objects.get()
    content = waiting.text.encode()
    begin = content.index("ä".encode())
    for cut in range(begin, begin + 7):
        recorded.write_bytes(content[:cut])
        RecorderFile.objects.all().delete()
        if not OutboxChange.objects.exists():
            OutboxChange.of(waiting.text).save()
        assert ingest(recorded, source=str(cut)).lines == 0

        # When the next one writes
        Shelf.objects.create(pk=2, name="next")

        # Then both lines are there, whole, and the half is a dead letter at most
        progress = ingest(recorded, source=str(cut))
        assert progress.dead_letters == progress.lines - 2 <= 1, cut
        texts = recorded.read_bytes().split(b"\n")
        assert content in texts
        assert b'"name": "next"' in texts[-2]
        Shelf.objects.filter(pk=2)._raw_delete("default")  # type: ignore[attr-defined]  # Django's own


@pytest.mark.parametrize("left", [b"\x00" * 5000, b"1.5 SAVE [\x00\x00", b"\x00\n\x00", b"\xff\x00\xc3\n"])
def test_remains_of_a_power_cut_spoil_no_line(recorded: Path, left: bytes) -> None:
    Shelf.objects.create(pk=1, name="a")
    with recorded.open("ab") as file:
        file.write(left)
    Shelf.objects.create(pk=2, name="b")
    progress = ingest(recorded, source="after a power cut")
    spoilt = left.removesuffix(b"\n").count(b"\n") + 1
    assert (progress.lines, progress.dead_letters) == (2 + spoilt, spoilt)
    before, text = recorded.read_bytes().removesuffix(b"\n").rsplit(b"\n", 1)
    assert before.endswith(left.removesuffix(b"\n"))
    assert b'"pk": 2' in text


def test_new_log_is_not_for_everybody_to_read(recorded: Path) -> None:
    before = os.umask(0)
    try:
        Shelf.objects.create(pk=1, name="a")
    finally:
        os.umask(before)
    assert recorded.stat().st_mode & 0o777 == 0o640


def test_log_that_was_taken_away_or_truncated_is_begun_again(recorded: Path) -> None:
    Shelf.objects.create(pk=1, name="a")
    recorded.unlink()
    Shelf.objects.create(pk=2, name="b")
    assert lines(recorded) == [("SAVE", [("shelf", 2)])]
    os.truncate(recorded, 0)
    Shelf.objects.create(pk=3, name="c")
    assert lines(recorded) == [("SAVE", [("shelf", 3)])]


@pytest.mark.needs_postgresql
def test_changes_of_one_object_are_in_the_order_of_their_commits(recorded: Path, monkeypatch: Any) -> None:
    """Though who committed first may come to write last."""
    Shelf.objects.create(pk=1, name="a")
    has_committed, go_on = threading.Event(), threading.Event()
    write, me = logfile.write_out, threading.current_thread()

    def hesitate() -> int:
        if threading.current_thread() is not me:
            has_committed.set()
            assert go_on.wait(20)
        return write()

    monkeypatch.setattr(recorder, "write_out", hesitate)

    def change() -> None:
        Shelf.objects.filter(pk=1).get()
        Shelf(pk=1, name="first").save()
        connection.close()

    thread = threading.Thread(target=change)
    thread.start()
    assert has_committed.wait(20)
    Shelf(pk=1, name="second").save()
    go_on.set()
    thread.join()
    names = [
        json.loads(text.split(" ", 2)[2])[0]["fields"]["name"] for text in recorded.read_text().splitlines()
    ]
    assert names == ["a", "first", "second"]


def test_several_writers_lose_and_double_nothing(recorded: Path, settings: Any) -> None:
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "ROTATE_BYTES": 2000}

    def work(first: int) -> None:
        for number in range(first, first + 20):
            Shelf.objects.create(pk=number, name="a")
        connection.close()

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_out()
    written = [entry for file in recorded.parent.iterdir() for entry in lines(file)]
    expected = [("SAVE", [("shelf", 100 * n + number)]) for n in range(1, 4) for number in range(20)]
    assert sorted(written) == sorted(expected)


def test_objects_that_were_there_before_can_be_recorded(recorded: Path, capsys: Any) -> None:
    Shelf.objects.bulk_create([Shelf(pk=n, name="a") for n in range(1, 2502)])
    Place.objects.bulk_create([Place(pk=1, town="A")])
    call_command("record_objects", "--existing")
    assert "2502 lines written" in capsys.readouterr().out
    assert len(lines(recorded)) == 2502
    call_command("record_objects")
    assert "0 lines written" in capsys.readouterr().out
    assert RecorderFile.objects.get().size_bytes == recorded.stat().st_size


def test_recording_nowhere_is_refused(settings: Any) -> None:
    settings.MORANGO_CELERY_OPLOG = {}
    with pytest.raises(CommandError, match=r"MORANGO_CELERY_OPLOG\['FILE'\]"):
        call_command("record_objects")


def test_check_names_models_that_are_not_installed(settings: Any) -> None:
    settings.MORANGO_CELERY_OPLOG = {
        "FILE": "x",
        "MODELS": ["library.Shelf", "library.Spaceship", "no.App"],
    }
    checked = run_checks(tags=["morango_celery"])
    found = [error.msg for error in checked if error.id == "morango_celery.E002"]
    assert found == [
        f"MORANGO_CELERY_OPLOG['MODELS'] names {label!r}, which is not installed."
        for label in ("library.Spaceship", "no.App")
    ]
    recorder.connect()  # goes by those that are
