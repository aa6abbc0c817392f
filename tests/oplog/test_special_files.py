"""Special files in place of a log: they are refused, never waited for or written to."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from morango_celery.oplog.logfile import write_out
from morango_celery.oplog.models import IngestPosition, OutboxChange
from morango_celery.oplog.regular import SpecialFileError
from tests.library.logs import append, save
from tests.library.models import Tag

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]

Make = Callable[[Path], None]

KINDS: dict[str, Make] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/null"),
    "a folder": os.mkdir,
}


@pytest.fixture(params=[*KINDS, "a socket"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    """Put a file of the kind at a path."""
    with ExitStack() as stack:

        def make_socket(path: Path) -> None:
            at = stack.enter_context(socket.socket(socket.AF_UNIX))
            here = os.open(path.parent, os.O_RDONLY)
            stack.callback(os.close, here)
            at.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may be no longer than 107 bytes

        yield KINDS.get(kind, make_socket)


def test_special_file_is_refused_as_the_log(log: Path, kind: str, make: Make) -> None:
    make(log)
    with pytest.raises(CommandError, match=f"{log} is {kind}; a log consists of regular files"):
        call_command("ingest_objects", str(log))


def test_special_file_ends_the_wait_for_more(log: Path, kind: str, make: Make) -> None:
    make(log)
    with pytest.raises(CommandError, match=f"{log} is {kind}; a log consists of regular files"):
        call_command("ingest_objects", str(log), "--follow")


def test_special_file_is_refused_as_a_rotated_one(log: Path, kind: str, make: Make) -> None:
    rotated = log.with_name(f"{log.name}.1")
    make(rotated)
    append(log, save("tag", "a"))
    with pytest.raises(CommandError, match=f"{rotated} is {kind}; a log consists of regular files"):
        call_command("ingest_objects", str(log))
    assert not Tag.objects.exists()
    assert not IngestPosition.objects.exists()


def test_link_to_a_regular_file_is_a_log(log: Path, tmp_path: Path) -> None:
    append(tmp_path / "elsewhere", save("tag", "a"))
    log.symlink_to(tmp_path / "elsewhere")
    call_command("ingest_objects", str(log))
    assert Tag.objects.get().pk == "a"


def test_nothing_is_recorded_in_a_special_file(recorded: Path, kind: str, make: Make) -> None:
    make(recorded)
    Tag.objects.create(slug="a")
    with pytest.raises(SpecialFileError, match=f"{recorded} is {kind}; a log consists of regular files"):
        write_out()
    assert OutboxChange.objects.count() == 1
    with pytest.raises(CommandError, match="The log can't be written: "):
        call_command("record_objects")


def test_waiting_lines_are_written_once_the_special_file_is_gone(
    recorded: Path, kind: str, make: Make
) -> None:
    make(recorded)
    Tag.objects.create(slug="a")
    if kind == "a folder":
        recorded.rmdir()
    else:
        recorded.unlink()
    assert write_out() == 1
    assert '"pk": "a"' in recorded.read_text()
