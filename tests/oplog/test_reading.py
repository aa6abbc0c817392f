"""Reading of a log after any changes of its files: from the right position, and each line once."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from typing_extensions import override

from morango_celery.oplog.ingest import Ingestion
from morango_celery.oplog.lines import Line
from morango_celery.oplog.models import IngestPosition
from morango_celery.oplog.source import BatchLines
from tests.library.logs import append, ingest, ingested, letters, positions, save
from tests.library.models import Local, Shelf

pytestmark = pytest.mark.django_db(transaction=True)

SHELF = save("shelf", 1, name="a")


def note(text: object) -> str:
    """Return a line that leaves one more row each time it is applied."""
    return save("local", None, shelf=1, note=str(text))


def notes() -> list[str]:
    """Return the noted texts, in the order of the lines."""
    return list(Local.objects.order_by("pk").values_list("note", flat=True))


@pytest.fixture(autouse=True)
def shelf() -> None:
    Shelf.objects.create(pk=1, name="a")


def test_reading_goes_on_where_it_ended(log: Path) -> None:
    ingested(log, [note(1), note(2)])
    ingested(log, [note(3)])
    ingest(log)
    assert notes() == ["1", "2", "3"]
    assert positions() == [(log.name, log.stat().st_size, 3)]


def test_line_without_its_newline_waits(log: Path) -> None:
    text = note("whole")
    append(log, note(1), text[:30], end="")
    assert ingest(log).lines == 1
    append(log, text[30:], end="")
    assert ingest(log).lines == 0
    append(log, "", end="\n")
    assert ingest(log).lines == 1
    assert (notes(), letters()) == (["1", "whole"], [])


def test_empty_lines_say_nothing(log: Path) -> None:
    ingested(log, ["", note(1), "   ", "", note(2), ""])
    ingested(log, [note(3)])
    assert (notes(), letters()) == (["1", "2", "3"], [])


def test_rest_of_a_renamed_log_is_read_before_the_new_one(log: Path) -> None:
    ingested(log, [note(1)])
    append(log, note(2))
    log.rename(f"{log}.1")
    append(log, note(3))
    ingest(log)
    assert notes() == ["1", "2", "3"]


def test_rest_of_a_log_that_was_copied_and_truncated_is_found_in_the_copy(log: Path) -> None:
    ingested(log, [note(1), note(2)])
    append(log, note(3))
    shutil.copyfile(log, f"{log}.1")
    assert ingest(log).lines == 1  # the copy is there, and the log not truncated yet

    append(log, note(4))
    shutil.copyfile(log, f"{log}.1")
    log.write_text("")
    append(log, *(note(number) for number in range(5, 20)))
    ingest(log)
    assert notes() == [str(number) for number in range(1, 20)]


def test_copy_that_is_not_complete_is_left_alone(log: Path) -> None:
    append(log, *(note(number) for number in range(50)))
    copy = Path(f"{log}-20260101")
    copy.write_bytes(log.read_bytes()[:2000])
    ingest(log)
    copy.write_bytes(log.read_bytes()[:2500])
    ingest(log)
    assert notes() == [str(number) for number in range(50)]


def test_several_rotations_are_caught_up_with_in_order(log: Path) -> None:
    ingested(log, [note(1)])
    for number in range(2, 6):
        append(log, note(number))
        log.rename(f"{log}.2026010{number}T000000.000000Z")
    append(log, note(6))
    ingest(log, 2)
    assert notes() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("times", ["set back", "equal"])
@pytest.mark.parametrize(
    "names",
    [
        [".11", ".10", ".9", ".2", ".1"],
        ["-20260101", "-20260102", "-20260103", "-20260201", "-20270101"],
        [f".2026010{n}T000000.000000Z" for n in range(1, 6)],
        [f".2026-01-0{n}_00-00-00" for n in range(1, 6)],
        [f"-176368462{n}" for n in range(5, 10)],
    ],
)
def test_rotated_files_are_in_the_order_of_their_names(log: Path, names: list[str], times: str) -> None:
    # Given files with contrary or equal modification times
    for number, name in enumerate(names):
        rotated = Path(f"{log}{name}")
        append(rotated, note(number))
        seconds = 2_000_000_000 - (number if times == "set back" else 0)
        os.utime(rotated, (seconds, seconds))
    append(log, note("last"))

    ingest(log)

    assert notes() == ["0", "1", "2", "3", "4", "last"]


def test_files_of_different_kinds_are_in_the_order_of_their_times(log: Path) -> None:
    for number, name in enumerate([".20260101T000000.000000Z", ".2", ".20260102T000000.000000Z", ".1"]):
        append(Path(f"{log}{name}"), note(number))
        os.utime(f"{log}{name}", (1_000_000_000 + number,) * 2)
    ingest(log)
    assert notes() == ["0", "1", "2", "3"]


def test_numbers_that_shift_with_each_rotation_do_no_harm(log: Path) -> None:
    for number in range(1, 5):
        append(log, note(f"{number} first"))
        ingest(log)
        append(log, note(f"{number} last"))
        for old in range(number - 1, 0, -1):
            Path(f"{log}.{old}").rename(f"{log}.{old + 1}")
        log.rename(f"{log}.1")
    append(log, note("end"))
    ingest(log)
    assert notes() == [*(f"{n} {part}" for n in range(1, 5) for part in ("first", "last")), "end"]


def test_another_file_of_the_same_name_is_read_from_its_beginning(log: Path) -> None:
    ingested(log, [note("old"), note("old too")])
    log.unlink()
    ingested(log, [note("new")])
    log.write_text("")
    ingested(log, [note("newer, and longer than all that was there before: " + 300 * "x")])
    assert [text[:5] for text in notes()] == ["old", "old t", "new", "newer"]


def test_file_that_comes_back_is_read_on(log: Path) -> None:
    ingested(log, [note(1)])
    away = log.with_name("elsewhere")
    log.rename(away)
    ingested(log, [note(2)])
    log.rename(log.with_name("other"))
    away.rename(log)
    ingested(log, [note(3)])
    assert notes() == ["1", "2", "3"]


def test_file_that_is_replaced_by_a_longer_copy_of_itself_is_read_on(log: Path) -> None:
    # As rsync does, which brings a log from another machine
    ingested(log, [note(number) for number in range(40)])
    copy = log.with_name("copy")
    shutil.copyfile(log, copy)
    append(copy, note("more"))
    copy.rename(log)
    ingest(log)
    assert notes() == [*(str(number) for number in range(40)), "more"]


def test_file_that_only_looks_like_a_part_of_the_log_is_not_read(log: Path) -> None:
    for name in (".lock", ".1.gz", ".bak", "x.1"):
        Path(f"{log}{name}").write_text(note(name) + "\n")
    ingested(log, [note(1)])
    assert notes() == ["1"]


def test_sources_keep_their_own_positions(log: Path) -> None:
    append(log, note(1))
    ingest(log, source="one")
    ingest(log, source="other")
    assert notes() == ["1", "1"]


def test_two_ingestions_at_once_apply_each_line_once(log: Path) -> None:
    append(log, *(note(number) for number in range(300)))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            ingest(log, 10)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(notes(), key=int) == [str(number) for number in range(300)]
    assert IngestPosition.objects.get().lines == 300


def test_file_that_is_truncated_while_it_is_read_is_looked_at_again(log: Path) -> None:
    # Given a log of which a batch was read, but not applied
    append(log, *(note(number) for number in range(4)))
    new = [note(f"new {number}") for number in range(4)]

    class Truncating(Ingestion):
        @override
        def _read(self, source: Any, unread: Any) -> None:
            if log.read_text().startswith(note(0)):
                unread.file.file.peek()  # it is in memory now
                log.write_text("\n".join(new) + "\n")
            super()._read(source, unread)

    Truncating(log, "test", 2).read_on()
    assert notes() == [f"new {number}" for number in range(4)]


def test_command_reads_once_and_sums_up(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append(log, note(1), "rubbish")
    call_command("ingest_objects", str(log), "--once")
    assert "2 lines: 1 applied, 1 became dead letters" in capsys.readouterr().out
    call_command("ingest_objects", str(log), "--batch-size=1")
    assert "0 lines" in capsys.readouterr().out


def test_command_says_what_is_wrong_with_its_arguments(log: Path) -> None:
    with pytest.raises(CommandError, match="There is no file"):
        call_command("ingest_objects", str(log))
    with pytest.raises(CommandError, match="batch-size: must be"):
        call_command("ingest_objects", str(log), "--batch-size=0")
    with pytest.raises(CommandError, match="Name the file"):
        call_command("ingest_objects")
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("ingest_objects", str(log), "--once", "--follow")


def test_batch_is_bounded_by_lines_and_by_bytes() -> None:
    lines = [Line(offset, size * b"x") for offset, size in enumerate([4, 4, 2, 1, 1, 1, 1, 30, 9, 1])]
    batches = [[len(line.content) for line in batch] for batch in BatchLines(3, 10)(lines)]
    assert batches == [[4, 4, 2], [1, 1, 1], [1], [30], [9, 1]]


def test_number_of_statements_does_not_grow_with_the_lines(log: Path) -> None:
    from django.test.utils import CaptureQueriesContext

    ingested(log, [note("first")])
    counts = []
    for size in (20, 400):
        lines = [
            *(save("shelf", size + n, name="a", inside=size + n // 2 if n else None) for n in range(size)),
            *(save("tag", f"{size}-{n}") for n in range(size)),
            *(save("book", f"{size:016x}{n:016x}", title="x", tags=[f"{size}-{n}"]) for n in range(size)),
        ]
        with CaptureQueriesContext(connection) as queries:
            ingested(log, lines, 10_000)
        assert not letters()
        counts.append(len(queries))
    assert counts[0] == counts[1]
