"""Retrying of dead letters after their cause was mended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from morango_celery.oplog import dead_letters
from morango_celery.oplog.apply import ChangeApplier
from morango_celery.oplog.ingest import ConcurrentIngestionError, in_one_transaction, require_models
from morango_celery.oplog.models import IngestSource


@dataclass
class Retried:
    applied: int = 0
    left: int = 0
    """Number of letters that failed again."""


def retry_dead_letters(source_name: str | None = None, letter_ids: Collection[int] | None = None) -> Retried:
    """Apply open dead letters, oldest first, each in its own transaction, until a round applies none.

    :param source_name: limits them to this source
    :param letter_ids: limits them to these, and to letters that waited for one of them
    :raises InvalidSettingError: no model is named whose objects may be ingested
    Twice: safe, also at the same time and beside an ingestion.
    """
    require_models()
    retried = Retried()
    sources = IngestSource.objects.order_by("pk")
    for source in sources if source_name is None else sources.filter(name=source_name):
        while True:
            chosen = dead_letters.open_dead_letters(source)
            if letter_ids is not None:
                chosen = chosen.filter(pk__in=letter_ids)
            ids = list(chosen.values_list("pk", flat=True))
            applied = sum(_retry(source, letter_id) for letter_id in ids)
            retried.applied += applied
            if not applied:
                retried.left += len(ids)
                break
    return retried


def _retry(source: IngestSource, letter_id: int) -> int:
    """Apply a letter, and return the number of letters that were applied with it."""

    def work(applier: ChangeApplier) -> int:
        letter = dead_letters.open_dead_letters(source).filter(pk=letter_id).first()
        if letter is None:
            return 0
        change = dead_letters.try_again(letter, applier)
        if change is None:
            return len(dead_letters.follow_up(source, applier, (), [letter]))
        return 1 + len(dead_letters.follow_up(source, applier, [change]))

    while True:
        try:
            return in_one_transaction(source, work)
        except ConcurrentIngestionError:
            source.refresh_from_db()
