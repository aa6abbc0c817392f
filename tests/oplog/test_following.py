"""Following a log: changes wake the follower, its own reading doesn't."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from morango_celery.management.wakeup import Wakeup
from morango_celery.oplog import follow
from morango_celery.oplog.follow import watching


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def wakes(wakeup: Wakeup, timeout_seconds: float) -> bool:
    """Return True if it is rung in that time; it is silent again then."""
    was_woken = bool(select.select([wakeup._reads], [], [], timeout_seconds)[0])
    wakeup.wait(0)
    return was_woken


def drain(wakeup: Wakeup) -> None:
    """Wait until all earlier changes are reported."""
    while wakes(wakeup, 0.3):
        pass


def test_wakeup_before_a_wait_is_remembered(wakeup: Wakeup) -> None:
    for _ in range(100_000):
        wakeup.wake()  # more than a pipe holds
    assert wakes(wakeup, 0)
    drain(wakeup)
    wakeup.request_stop(15, None)
    assert wakeup.stop_requested
    assert wakes(wakeup, 0)


def test_change_of_the_log_wakes_and_its_reading_does_not(wakeup: Wakeup, log: Path) -> None:
    with watching(log.parent, wakeup) as watch:
        watch.ensure()
        log.write_text("one\n")
        assert wakes(wakeup, 10)
        drain(wakeup)
        assert log.read_text() == "one\n"
        assert not wakes(wakeup, 0.5)
        log.rename(f"{log}.1")
        assert wakes(wakeup, 10)


def test_without_word_from_the_system_files_are_polled(
    wakeup: Wakeup, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a system without inotify
    import watchdog.observers

    def fail() -> None:
        raise OSError("inotify instance limit reached")

    monkeypatch.setattr(watchdog.observers, "Observer", fail)
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.1)

    # Then it is found out all the same
    with watching(log.parent, wakeup) as watch:
        watch.ensure()
        drain(wakeup)
        log.write_text("one\n")
        assert wakes(wakeup, 10)


def test_folder_that_is_not_there_is_watched_once_it_is(wakeup: Wakeup, log: Path) -> None:
    log.parent.rmdir()
    with watching(log.parent, wakeup) as watch:
        watch.ensure()
        log.parent.mkdir()
        watch.ensure()
        log.write_text("one\n")
        assert wakes(wakeup, 10)


@pytest.mark.django_db(transaction=True)
def test_without_watchdog_following_is_refused(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    with pytest.raises(CommandError, match=r"install morango-celery\[oplog\]"):
        call_command("ingest_objects", str(log), "--follow")
    log.write_text("")
    call_command("ingest_objects", str(log))
