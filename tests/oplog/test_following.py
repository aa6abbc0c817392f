"""What wakes who follows a log, and what doesn't."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from morango_celery.management.bell import Bell
from morango_celery.oplog import follow
from morango_celery.oplog.follow import watching


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def rings(bell: Bell, timeout_seconds: float) -> bool:
    """Whether it is rung in that time; it is silent again then."""
    was_rung = bool(select.select([bell._reads], [], [], timeout_seconds)[0])
    bell.wait(0)
    return was_rung


def settle(bell: Bell) -> None:
    """Until what was done before is told."""
    while rings(bell, 0.3):
        pass


def test_a_bell_remembers_that_it_was_rung(bell: Bell) -> None:
    for _ in range(100_000):
        bell.ring()  # more than a pipe holds
    assert rings(bell, 0)
    settle(bell)
    bell.request_stop(15, None)
    assert bell.stop_requested
    assert rings(bell, 0)


def test_a_change_of_the_log_rings_and_its_reading_does_not(bell: Bell, log: Path) -> None:
    with watching(log.parent, bell) as watch:
        watch.ensure()
        log.write_text("one\n")
        assert rings(bell, 10)
        settle(bell)
        assert log.read_text() == "one\n"
        assert not rings(bell, 0.5)
        log.rename(f"{log}.1")
        assert rings(bell, 10)


def test_without_word_from_the_system_files_are_polled(
    bell: Bell, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system without inotify
    import watchdog.observers

    def fail() -> None:
        raise OSError("inotify instance limit reached")

    monkeypatch.setattr(watchdog.observers, "Observer", fail)
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.1)

    # Then it is found out all the same
    with watching(log.parent, bell) as watch:
        watch.ensure()
        settle(bell)
        log.write_text("one\n")
        assert rings(bell, 10)


def test_a_folder_that_is_not_there_is_watched_once_it_is(bell: Bell, log: Path) -> None:
    log.parent.rmdir()
    with watching(log.parent, bell) as watch:
        watch.ensure()
        log.parent.mkdir()
        watch.ensure()
        log.write_text("one\n")
        assert rings(bell, 10)


@pytest.mark.django_db(transaction=True)
def test_without_watchdog_following_is_refused(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    with pytest.raises(CommandError, match=r"install morango-celery\[oplog\]"):
        call_command("ingest_objects", str(log), "--follow")
    log.write_text("")
    call_command("ingest_objects", str(log))
