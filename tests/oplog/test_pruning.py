"""`prune_oplog`: it removes old resolved letters and positions, and nothing else."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from morango_celery.oplog.ingest import Ingestion
from morango_celery.oplog.models import DeadLetter, DeadLetterObject, IngestPosition
from morango_celery.oplog.pruning import prune
from tests.library.logs import append, ingest, ingested, letters, positions, save
from tests.library.models import Shelf
from tests.support.clocks import clock_ahead

pytestmark = pytest.mark.django_db(transaction=True)

YEAR = 365 * 24 * 60 * 60


def resolve(days_ago: float) -> None:
    """Date all resolved letters back by a number of days."""
    resolved = DeadLetter.objects.exclude(state=DeadLetter.State.OPEN)
    resolved.update(resolved_at=timezone.now() - timedelta(days=days_ago))


def read(days_ago: float) -> None:
    """Date all positions back by a number of days."""
    IngestPosition.objects.update(updated_at=timezone.now() - timedelta(days=days_ago))


def test_only_letters_resolved_long_ago_are_removed(log: Path, capsys: Any) -> None:
    # Given letters that were applied and superseded, one that is open, and one that is resolved since
    ingested(log, [save("shelf", 1, name="a", inside=99), save("shelf", 2, name="old", inside=99)])
    ingested(log, [save("shelf", 2, name="new"), save("shelf", 99, name="parent"), "rubbish"])
    resolve(days_ago=30.1)
    ingested(log, [save("shelf", 3, name="a", inside=98)])
    ingested(log, [save("shelf", 98, name="parent")])
    states = DeadLetter.objects.order_by("pk").values_list("state", flat=True)
    assert list(states) == ["applied", "superseded", "open", "applied"]

    # When rows older than 30 days are removed
    call_command("prune_oplog", "--days=30")

    # Then these are left
    assert list(states.all()) == ["open", "applied"]
    assert DeadLetterObject.objects.count() == 0  # the open one can't be read
    assert capsys.readouterr().out == "2 dead letters and 0 positions removed.\n"
    call_command("prune_oplog", "--days=30")
    assert capsys.readouterr().out == "0 dead letters and 0 positions removed.\n"


def test_number_of_removed_letters_is_told_meanwhile(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morango_celery.oplog.pruning.CHUNK_LETTERS", 2)
    ingested(log, [save("shelf", number, name="old", inside=99) for number in (1, 2, 3)])
    ingested(log, [save("shelf", 99, name="parent")])
    resolve(days_ago=31)
    told: list[tuple[int, int]] = []

    assert prune(30, lambda done, total: told.append((done, total))).letters == 3

    assert told == [(2, 3), (3, 3)]


@pytest.mark.needs_postgresql
def test_machine_whose_clock_is_ahead_removes_no_letters_before_their_time(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given letters that were resolved just now, one of them by a machine that is far behind
    for ahead_seconds in (0, -YEAR):
        ingested(log, [save("shelf", 3, name="a", inside=98)])
        with clock_ahead(monkeypatch, ahead_seconds):
            ingested(log, [save("shelf", 98, name="parent")])

    # When a machine that is as far ahead prunes, then they are left
    with clock_ahead(monkeypatch, YEAR):
        assert prune(30).letters == 0


def test_pruning_keeps_objects_of_open_letters(log: Path) -> None:
    ingested(log, [save("shelf", 1, name="a", inside=99)])
    DeadLetter.objects.update(created_at=timezone.now() - timedelta(days=1000))
    assert prune(1).letters == 0
    assert DeadLetterObject.objects.get().key == "library.shelf:1"


def test_position_of_a_log_that_is_gone_goes_after_some_days(log: Path) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    log.unlink()
    read(days_ago=6.9)
    assert prune(7).positions == 0
    read(days_ago=7.1)
    assert prune(7).positions == 1
    assert prune(7).positions == 0
    assert not IngestPosition.objects.exists()
    assert ingested(log, [save("shelf", 2, name="b")]).lines == 1


@pytest.mark.parametrize("renamed", ["changes.log.1", "changes.log-20200101", "changes.log.gone"])
def test_position_of_a_file_that_has_another_name_now_is_left(log: Path, renamed: str) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    log.rename(log.with_name(renamed))
    append(log, save("shelf", 2, name="b"))
    read(days_ago=100)
    assert prune(1).positions == 0
    assert ingest(log).lines == 1


def test_position_of_a_rotated_file_is_left_under_every_further_name(log: Path) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    rotated = log.rename(log.with_name("changes.log.1"))
    append(rotated, save("shelf", 1, name="b"))
    ingest(log)
    assert positions()[0][0] == "changes.log.1"
    rotated.rename(log.with_name("changes.log.2"))
    read(days_ago=100)
    assert prune(1).positions == 0
    append(log, save("tag", "a"))
    assert ingest(log).lines == 1
    assert Shelf.objects.get().name == "b"


def test_position_of_a_file_that_was_copied_is_left(log: Path, tmp_path: Path) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    shutil.copy(log, tmp_path / "copy")
    log.unlink()
    shutil.copy(tmp_path / "copy", log)
    read(days_ago=100)
    assert prune(1).positions == 0
    assert ingest(log).lines == 0


def test_positions_are_left_while_their_folder_is_away(log: Path, tmp_path: Path) -> None:
    ingested(log, [save("shelf", 1, name="a")])
    log.parent.rename(tmp_path / "away")
    read(days_ago=100)
    assert prune(1).positions == 0
    (tmp_path / "away").rename(log.parent)
    assert ingest(log).lines == 0


def test_pruning_beside_an_ingestion_loses_and_doubles_nothing(log: Path, tmp_path: Path) -> None:
    # Given a position in a file that is gone, and a log that is being read
    ingested(log, [save("shelf", 1, name="a")])
    log.rename(tmp_path / "elsewhere")  # or the next log might have its inode
    append(log, *[save("shelf", number, name="b") for number in range(2, 12)])
    read(days_ago=100)
    ingestion = Ingestion(log, "test", 3, on_progress=lambda progress: pruned.append(prune(1)))
    pruned: list[Any] = []
    ingestion.read_on()

    # Then each line was applied once
    assert [one.positions for one in pruned] == [1, 0, 0, 0]
    assert ingestion.progress.lines == 10
    assert Shelf.objects.count() == 11
    assert not letters()
    assert ingest(log).lines == 0


def test_nothing_is_removed_unless_somebody_says_how_old_it_is(log: Path) -> None:
    with pytest.raises(CommandError, match="--days"):
        call_command("prune_oplog")
