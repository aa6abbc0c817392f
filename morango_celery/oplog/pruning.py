"""Removal of resolved dead letters, and of positions in files that are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from django.db.models import QuerySet

from morango_celery import clock
from morango_celery.django_compat import delete_unread
from morango_celery.oplog.apply import ChangeApplier
from morango_celery.oplog.files import may_be_there
from morango_celery.oplog.ingest import ConcurrentIngestionError, in_one_transaction
from morango_celery.oplog.models import DeadLetter, DeadLetterObject, IngestPosition, IngestSource
from morango_celery.stream import chunked

DAY_SECONDS = 24 * 60 * 60

CHUNK_LETTERS = 1000
"""Number of letters that are removed in one transaction."""


@dataclass(frozen=True)
class Pruned:
    letters: int
    positions: int


def prune(older_than_days: int, on_progress: Callable[[int, int], None] | None = None) -> Pruned:
    """Remove dead letters that were resolved so many days ago, and positions as old in files that are gone.

    :param on_progress: called with the number of removed letters, and that of all to remove, now and then
    :raises OSError: a folder of a log can't be read
    Twice: safe, also at the same time and beside an ingestion, which may have to read a batch again.
    """
    until = clock.now(-older_than_days * DAY_SECONDS)
    resolved = DeadLetter.objects.exclude(state=DeadLetter.State.OPEN).filter(resolved_at__lt=until)
    found = list(resolved.values_list("pk", flat=True))
    letters = 0
    for chunk in chunked(found, CHUNK_LETTERS):
        letters += _remove(chunk)
        if on_progress is not None:
            on_progress(letters, len(found))
    old = IngestPosition.objects.filter(updated_at__lt=until)
    sources = IngestSource.objects.filter(pk__in=old.values("source")).order_by("pk")
    return Pruned(letters, sum(_forget(source, old) for source in sources))


def _remove(letter_ids: list[int]) -> int:
    """Remove letters without reading their texts."""
    with transaction.atomic():
        about: QuerySet[DeadLetterObject] = DeadLetterObject.objects.filter(letter__in=letter_ids)
        about.delete()
        letters = DeadLetter.objects.filter(pk__in=letter_ids)
        return delete_unread(letters, letters.db)


def _forget(source: IngestSource, old: QuerySet[IngestPosition]) -> int:
    """Remove positions in files that are gone. A concurrent reader of the log notices, and looks again."""

    def work(_: ChangeApplier) -> int:
        gone = [position for position in old.filter(source=source) if _is_gone(position)]
        for position in gone:
            position.delete()
        return len(gone)

    if not any(map(_is_gone, old.filter(source=source))):
        return 0
    while True:
        try:
            return in_one_transaction(source, work)
        except ConcurrentIngestionError:
            source.refresh_from_db()


def _is_gone(position: IngestPosition) -> bool:
    """Return True if the folder is there, and none of its files may be the position's, under any name.

    A missing folder may be a disk that isn't mounted.
    """
    return Path(position.path).parent.is_dir() and not may_be_there(position)
