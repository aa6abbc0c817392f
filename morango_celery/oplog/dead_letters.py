"""Dead letters: lines that couldn't be applied, kept until they are applied or outdated.

A line is outdated for an object once a later line about that object was applied. So a retried letter never
brings old values back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import reduce
from itertools import chain
from operator import or_

from django.db import IntegrityError
from django.db.models import ProtectedError, Q, QuerySet, RestrictedError
from django.db.models.functions import Length

from morango_celery import clock
from morango_celery.oplog.apply import ChangeApplier, Failure, missing_names, names
from morango_celery.oplog.lines import Change, Line, LineError, Operation, parse, printable
from morango_celery.oplog.meta import MAX_KEYS
from morango_celery.oplog.models import DeadLetter, DeadLetterObject, IngestSource
from morango_celery.oplog.object_names import name_of, name_of_any
from morango_celery.stream import chunked

BY_CONSTRAINT = tuple(f"{error.__name__}:" for error in (IntegrityError, ProtectedError, RestrictedError))
"""Beginnings of the reason of a letter that a constraint of the database, or an `on_delete`, refused."""
MAX_RETRIED_CHARACTERS = 100_000
"""Length of the longest line that is tried again after each batch; some 500 objects."""
MAX_REFUSED = 8
"""Number of letters, the last that a constraint refused, that are tried again: each alone, and together."""


def keep(
    source: IngestSource,
    path: str,
    line: Line,
    reason: str,
    missing_object: str = "",
    failure: Failure | None = None,
) -> DeadLetter:
    """Store a line that couldn't be applied.

    :param failure: the failure of its change; None if the line couldn't be read
    """
    known = names(failure.change) if failure is not None else set()
    current = known - (failure.outdated_for if failure is not None else set())
    outdated = bool(known) and not current
    letter = DeadLetter.objects.create(
        source=source,
        path=printable(path),
        offset=line.offset,
        text=line.text,
        reason=reason,
        missing_object=missing_object,
        state=DeadLetter.State.SUPERSEDED if outdated else DeadLetter.State.OPEN,
        resolved_at=clock.now() if outdated else None,
    )
    DeadLetterObject.objects.bulk_create(
        [DeadLetterObject(letter=letter, key=key) for key in sorted(current)], batch_size=MAX_KEYS
    )
    return letter


def open_dead_letters(source: IngestSource) -> QuerySet[DeadLetter]:
    return source.dead_letters.filter(state=DeadLetter.State.OPEN).order_by("pk")


def follow_up(
    source: IngestSource, applier: ChangeApplier, news: Iterable[Change], new: Iterable[DeadLetter] = ()
) -> set[int]:
    """Retry letters that applied changes may have freed, and letters that need each other.

    :param news: changes that were just applied
    :param new: letters that were just stored
    :returns: the ids of the letters that were applied
    Cost: a query for each letter that is new or failed again; if a constraint refused it, up to 7 attempts at
    it and the letters before it, and a query more. If anything was applied, a query and an attempt at each of
    the last 8 letters that a constraint refused.
    Memory: one letter's text at a time, however many letters wait; of letters that need each other, all.
    """
    applied: set[int] = set()
    left = deque(letter.pk for letter in new)
    changes = list(news)
    if changes:
        applied, failed = _follow(source, applier, set(chain.from_iterable(map(_waited_for, changes))))
        left.extend(failed)
    while left:
        for group in _groups(source, left.popleft()):
            if len(group) < 2 or not applier.try_together(change for _, change in _changes(source, group)):
                continue
            names_applied: set[str] = set()
            for one, change in _changes(source, group):
                _resolve_applied(one, change)
                names_applied |= _waited_for(change)
            followed, failed = _follow(source, applier, names_applied)
            applied |= {*group} | followed
            left.extend(failed)
            break
    return applied


def _groups(source: IngestSource, letter_id: int) -> Iterator[list[int]]:
    """Yield the ids of letters that may be applicable together with one, though none is alone.

    These are the letters that it waits for; and where a constraint refused it, the last ones before it with
    the same fate, since the lines of a transaction that broke a constraint for a moment follow each other.
    """
    letter = open_dead_letters(source).filter(pk=letter_id).only("missing_object", "reason").first()
    if letter is None:
        return
    if letter.missing_object:
        yield _that_wait_for_each_other(source, letter.pk)
    if letter.reason.startswith(BY_CONSTRAINT):
        refused = _last_refused(source).filter(pk__lte=letter.pk)
        last = sorted(refused.values_list("pk", "missing_object")[:MAX_REFUSED])
        for size in range(2, len(last) + 1):
            if not all(missing for _, missing in last[-size:]):  # these wait for others than each other
                yield [letter_id for letter_id, _ in last[-size:]]


def _follow(
    source: IngestSource, applier: ChangeApplier, news: Collection[str]
) -> tuple[set[int], list[int]]:
    """Retry the letters that changes may have freed, and in turn those that these free.

    A letter that waits for an object is freed by its name. Which change frees the values of one that a
    constraint refused can't be told (it may be a deletion that cascades), so the last ones are tried.

    :param news: names of objects that are there now
    :returns: the ids of the letters that were applied, and of those to be tried with others
    """
    applied: set[int] = set()
    failed: list[int] = []
    while True:
        waiting = _ids(open_dead_letters(source), "missing_object", news)
        refused = _last_small_refused(source)
        freed: set[str] = set()
        was_applied = len(applied)
        for letter in _one_by_one(source, waiting | refused):
            change = try_again(letter, applier)
            if change is not None:
                applied.add(letter.pk)
                freed |= _waited_for(change)
            elif letter.pk in waiting:
                failed.append(letter.pk)
        if len(applied) == was_applied:
            return applied, failed + sorted(refused)[-1:]
        news = freed


def _last_small_refused(source: IngestSource) -> set[int]:
    """Return the ids of the last letters that a constraint refused, without those of large lines.

    To try a large one again costs as much as it did at first, and this is done after each batch.
    """
    sized = _last_refused(source).annotate(characters=Length("text")).values_list("pk", "characters")
    return {
        letter_id for letter_id, characters in sized[:MAX_REFUSED] if characters <= MAX_RETRIED_CHARACTERS
    }


def _last_refused(source: IngestSource) -> QuerySet[DeadLetter]:
    """Return the open letters that a constraint refused, the last one first."""
    refused = reduce(or_, (Q(reason__startswith=beginning) for beginning in BY_CONSTRAINT))
    return open_dead_letters(source).filter(refused).reverse()


def _that_wait_for_each_other(source: IngestSource, letter_id: int) -> list[int]:
    """Return the ids of a letter and of all letters that it depends on, directly or not, in order."""
    found: set[int] = set()
    entered = {letter_id}
    while entered:
        found |= entered
        wanted: set[str] = set()
        for _, change in _changes(source, entered):
            wanted.update(missing_names(change))
        entered = _ids(open_dead_letters(source), "objects_of_letter__key", wanted) - found
    return sorted(found)


def _one_by_one(source: IngestSource, letter_ids: Iterable[int]) -> Iterator[DeadLetter]:
    """Yield open letters in order, each read on demand."""
    for letter_id in sorted(letter_ids):
        yield from open_dead_letters(source).filter(pk=letter_id)


def _changes(source: IngestSource, letter_ids: Iterable[int]) -> Iterator[tuple[DeadLetter, Change]]:
    for letter in _one_by_one(source, letter_ids):
        change = _current(letter)
        if change is not None:
            yield letter, change


def _ids(letters: QuerySet[DeadLetter], name: str, values: Iterable[str]) -> set[int]:
    """Return the ids of the letters with one of these values."""
    found: set[int] = set()
    for chunk in chunked(values, MAX_KEYS):
        found.update(letters.filter(**{f"{name}__in": chunk}).values_list("pk", flat=True))
    return found


def supersede(source: IngestSource, changes: Iterable[Change], before: int | None = None) -> None:
    """Mark open letters as outdated for the objects of these changes.

    :param before: id of a letter; only earlier ones are marked
    """
    letter_ids: set[int] = set()
    for chunk in chunked(set(chain.from_iterable(map(names, changes))), MAX_KEYS):
        about = DeadLetterObject.objects.filter(
            letter__source=source, letter__state=DeadLetter.State.OPEN, key__in=chunk
        )
        if before is not None:
            about = about.filter(letter__lt=before)
        found = dict(about.values_list("pk", "letter"))
        letter_ids.update(found.values())
        for outdated in chunked(found, MAX_KEYS):
            DeadLetterObject.objects.filter(pk__in=outdated).delete()
    for some in chunked(sorted(letter_ids), MAX_KEYS):
        about_nothing = open_dead_letters(source).filter(pk__in=some, objects_of_letter=None)
        _resolve(about_nothing, DeadLetter.State.SUPERSEDED)


def try_again(letter: DeadLetter, applier: ChangeApplier) -> Change | None:
    """Apply a letter, as far as it isn't outdated.

    :returns: the applied change; None if it failed again, and its new reason was stored
    """
    change = _current(letter)
    if change is None:
        return None
    failure = applier.try_alone(change)
    if failure is not None:
        letter.reason, letter.missing_object = failure.reason, failure.missing_object
        letter.attempts += 1
        letter.save(update_fields=["reason", "missing_object", "attempts"])
        return None
    _resolve_applied(letter, change)
    return change


def _current(letter: DeadLetter) -> Change | None:
    """Return a letter's change without outdated objects; None if the line can't be read."""
    try:
        change = parse(Line(letter.offset, letter.text.encode()))
    except LineError:
        return None
    current = set(letter.objects_of_letter.values_list("key", flat=True)) | {""}
    return change._replace(objects=[data for data in change.objects if name_of(data) in current])


def _resolve_applied(letter: DeadLetter, change: Change) -> None:
    _resolve(DeadLetter.objects.filter(pk=letter.pk), DeadLetter.State.APPLIED)
    letter.objects_of_letter.all().delete()
    supersede(letter.source, [change], before=letter.pk)


def _waited_for(change: Change) -> set[str]:
    """Return the names by which letters may wait for the objects that a change saves."""
    if change.operation is not Operation.SAVE:
        return set()
    of_any = {name_of_any(data["model"]) for data in change.objects}
    return of_any | {name_of(data) for data in change.objects} - {""}


def _resolve(letters: QuerySet[DeadLetter], state: DeadLetter.State) -> None:
    letters.update(state=state, resolved_at=clock.now())
