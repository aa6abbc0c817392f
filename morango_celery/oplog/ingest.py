"""Ingestion: from files to objects, position and all in one transaction per batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from django.db import DatabaseError, IntegrityError, transaction
from typing_extensions import override

from morango_celery.db.dialect import dialect
from morango_celery.db.transactions import first_error_wins
from morango_celery.deserialization.constraint_checks import strict_check
from morango_celery.errors import InvalidSettingError, TransientError
from morango_celery.oplog import dead_letters
from morango_celery.oplog.apply import ChangeApplier, may_be_a_lines_fault
from morango_celery.oplog.files import OpenFile, Unread, unread_files
from morango_celery.oplog.lines import Change
from morango_celery.oplog.models import DeadLetter, IngestPosition, IngestSource
from morango_celery.oplog.rows import ingested_models
from morango_celery.oplog.source import BadLine, BatchLines, OplogSource, ParseLines
from morango_celery.oplog.suppression import suppress_recording
from morango_celery.stream import Sink

Result = TypeVar("Result")

BATCH_LINES = 1000
ATTEMPTS = 3
"""Attempts at a batch that takes too long or too much memory, before one of its lines is blamed."""


class ConcurrentIngestionError(TransientError):
    """Another process has read on, or the file has changed: look again."""


@dataclass
class IngestionProgress:
    """Progress of an ingestion."""

    lines: int = 0
    dead_letters: int = 0
    """Lines that couldn't be applied."""
    dead_letters_applied: int = 0
    """Earlier dead letters that could be applied now."""
    bytes_read: int = 0
    bytes_in_all: int = 0
    """Bytes read, and those known to be unread."""


@dataclass
class Ingestion:
    """Reader of a log, from its source's last position on."""

    path: Path
    source_name: str
    batch_lines: int = BATCH_LINES
    should_stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[IngestionProgress], None] = lambda progress: None
    progress: IngestionProgress = field(default_factory=IngestionProgress)

    def read_on(self) -> None:
        """Apply the log's new lines, until there are none, or until `should_stop`.

        :raises InvalidSettingError: no model is named whose objects may be ingested
        :raises OSError: a file can't be read
        Twice: safe, also at the same time.
        """
        require_models()
        while not self.should_stop():
            try:
                if not self._pass():
                    return
            except ConcurrentIngestionError:
                continue

    def _pass(self) -> bool:
        """Read each file to its end.

        :returns: True if there were any lines
        """
        before = self.progress.lines
        # First the version, so that a reader which goes on after this is noticed
        source, _ = IngestSource.objects.get_or_create(name=self.source_name)
        with unread_files(self.path, list(source.positions.order_by("-updated_at", "-pk"))) as found:
            unread = sum(one.file.size_bytes - one.offset for one in found)
            self.progress.bytes_in_all = self.progress.bytes_read + unread
            for one in found:
                self._read(source, one)
                if self.should_stop():
                    break
        return self.progress.lines > before

    def _read(self, source: IngestSource, unread: Unread) -> None:
        lines = OplogSource(unread.file, unread.offset, self.should_stop)
        sink = ObjectSink(source, unread.file, unread.position, self._count)
        lines.pipe(BatchLines(self.batch_lines)).pipe(ParseLines()).end(sink)

    def _count(self, batch: BatchCounts) -> None:
        self.progress.lines += batch.lines
        self.progress.dead_letters += batch.dead_letters
        self.progress.dead_letters_applied += batch.dead_letters_applied
        self.progress.bytes_read += batch.bytes_read
        self.on_progress(self.progress)


def require_models() -> None:
    """Require models to ingest: without any, each line would become a dead letter.

    :raises InvalidSettingError: no installed model is named
    """
    if not ingested_models():
        raise InvalidSettingError(
            "MORANGO_CELERY_OPLOG['INGEST_MODELS'] names no installed model, so nothing of a log may be "
            "applied. Name the models whose objects it may bring."
        )


def in_one_transaction(source: IngestSource, work: Callable[[ChangeApplier], Result]) -> Result:
    """Call `work` in a transaction that excludes other changes of the source's objects and positions.

    :param work: called again if SQLite finds a dangling reference only at COMMIT, and after a timeout or a
        lack of memory. The last of those attempts blames the lines that cause it.
    :raises ConcurrentIngestionError: another process has used the source since it was read; nothing was done
    """
    strictly, attempts = False, 0
    while True:
        try:
            return _exclusively(source, work, strictly=strictly, blames_lines=attempts == ATTEMPTS)
        except IntegrityError:
            if dialect().checks_constraints_early or strictly:
                raise
            strictly = True
        except (DatabaseError, MemoryError) as error:
            if attempts == ATTEMPTS or not may_be_a_lines_fault(error):
                raise
            attempts += 1


def _exclusively(
    source: IngestSource, work: Callable[[ChangeApplier], Result], *, strictly: bool, blames_lines: bool
) -> Result:
    with suppress_recording(), first_error_wins(), transaction.atomic():
        expected = IngestSource.objects.filter(pk=source.pk, version=source.version)
        if not expected.update(version=source.version + 1):  # this row's lock excludes others
            raise ConcurrentIngestionError
        applier = ChangeApplier(blames_lines=blames_lines)
        if strictly:
            applier.check_strictly = strict_check()
        result = work(applier)
    source.version += 1
    return result


@dataclass(frozen=True)
class BatchCounts:
    """Result of one batch."""

    lines: int
    dead_letters: int
    dead_letters_applied: int
    bytes_read: int


class ObjectSink(Sink[Sequence[Change | BadLine]]):
    """Sink that applies batches of a file, each in one transaction with the position behind it."""

    def __init__(
        self,
        source: IngestSource,
        file: OpenFile,
        position: IngestPosition | None,
        on_batch: Callable[[BatchCounts], None],
    ) -> None:
        self.source = source
        self.file = file
        self.position = position or IngestPosition(source=source)
        self.next = self.position
        """The position behind the batch that is being applied."""
        self.on_batch = on_batch

    @override
    def consume(self, item: Sequence[Change | BadLine]) -> None:
        """Apply one batch.

        :raises ConcurrentIngestionError: nothing was applied: the file or the source has changed
        """
        end = item[-1].line.end
        if not self.file.is_unchanged(end):
            raise ConcurrentIngestionError
        began = self.position.offset
        dead, revived = in_one_transaction(self.source, lambda applier: self._apply(applier, item, end))
        self.position = self.next
        self.on_batch(BatchCounts(len(item), dead, revived, bytes_read=end - began))

    def _apply(self, applier: ChangeApplier, item: Sequence[Change | BadLine], end: int) -> tuple[int, int]:
        had_letters = dead_letters.open_dead_letters(self.source).exists()
        changes = [one for one in item if isinstance(one, Change)]
        applier.apply(changes)
        if had_letters:
            dead_letters.supersede(self.source, applier.applied)
        kept = self._keep(applier, item)
        revived = (
            dead_letters.follow_up(self.source, applier, applier.applied, kept)
            if had_letters or kept
            else set()
        )
        position = self.next = copy(self.position)
        self.file.mark(position, end)
        position.lines += len(item)
        position.save()
        dead = {letter.pk for letter in kept} - revived
        return len(dead), len(revived) + len(dead) - len(kept)

    def _keep(self, applier: ChangeApplier, item: Sequence[Change | BadLine]) -> list[DeadLetter]:
        path = str(self.file.path)
        failures = {id(failure.change): failure for failure in applier.failures}
        kept = []
        for one in item:
            if isinstance(one, BadLine):
                kept.append(dead_letters.keep(self.source, path, one.line, str(one.error)))
            elif failure := failures.get(id(one)):
                reason, missing_object = failure.reason, failure.missing_object
                kept.append(dead_letters.keep(self.source, path, one.line, reason, missing_object, failure))
        return kept
