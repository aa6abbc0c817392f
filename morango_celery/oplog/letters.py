"""Dead letters: lines that couldn't be applied, kept until they are, or until they are outdated.

A line is outdated for an object once a later line about it was applied. So a letter never brings old values
back, whenever it is tried again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from django.db.models import Q, QuerySet
from django.utils import timezone

from morango_celery.oplog.apply import Applying, Failure, missing_names, names
from morango_celery.oplog.lines import Change, Line, LineError, Operation, parse, printable
from morango_celery.oplog.models import DeadLetter, DeadLetterObject, IngestSource
from morango_celery.oplog.rows import name_of, name_of_any


def keep(
    source: IngestSource,
    path: str,
    line: Line,
    reason: str,
    waits_for: str = "",
    failure: Failure | None = None,
) -> DeadLetter:
    """Note a line that couldn't be applied.

    :param failure: if it could be read, what came of it
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
        waits_for=waits_for,
        state=DeadLetter.State.SUPERSEDED if outdated else DeadLetter.State.OPEN,
        settled_at=timezone.now() if outdated else None,
    )
    DeadLetterObject.objects.bulk_create(
        [DeadLetterObject(letter=letter, key=key) for key in sorted(current)]
    )
    return letter


def open_letters(source: IngestSource) -> QuerySet[DeadLetter]:
    return source.dead_letters.filter(state=DeadLetter.State.OPEN).order_by("pk")


def follow_up(source: IngestSource, applying: Applying, new: Iterable[DeadLetter] = ()) -> set[int]:
    """Try those again that waited for what was applied just now; and those that wait for each other.

    :param new: letters that were kept just now
    :returns: the ids of those that were applied
    """
    applied = _follow(source, applying, applying.applied)
    for letter in new:
        if letter.waits_for and letter.pk not in applied:
            group = _that_wait_for_each_other(source, letter)
            changes = [change for change in map(_current, group) if change is not None]
            if len(changes) > 1 and applying.try_together(changes):
                for one, change in zip(group, changes, strict=True):
                    _settle_applied(one, change)
                applied |= {one.pk for one in group} | _follow(source, applying, changes)
    return applied


def _follow(source: IngestSource, applying: Applying, news: Sequence[Change]) -> set[int]:
    applied = set()
    news = list(news)
    while news and (waiting := list(open_letters(source).filter(_waits_for(news)))):
        news = []
        for letter in waiting:
            change = try_again(letter, applying)
            if change is not None:
                applied.add(letter.pk)
                news.append(change)
    return applied


def _that_wait_for_each_other(source: IngestSource, letter: DeadLetter) -> list[DeadLetter]:
    """This letter, those about what it waits for, those about what these wait for, and so on, in order."""
    found: dict[int, DeadLetter] = {}
    entered = {letter.pk: letter}
    while entered:
        found.update(entered)
        wanted = {
            name
            for one in entered.values()
            if (change := _current(one)) is not None
            for name in missing_names(change)
        }
        about = open_letters(source).filter(objects_of_letter__key__in=wanted).exclude(pk__in=list(found))
        entered = about.distinct().in_bulk()
    return [found[pk] for pk in sorted(found)]


def supersede(source: IngestSource, changes: Sequence[Change], before: int | None = None) -> None:
    """Earlier letters are outdated for the objects of these changes."""
    about = DeadLetterObject.objects.filter(
        letter__source=source,
        letter__state=DeadLetter.State.OPEN,
        key__in=set(chain.from_iterable(map(names, changes))),
    )
    if before is not None:
        about = about.filter(letter__lt=before)
    letter_ids = set(about.values_list("letter", flat=True))
    if not letter_ids:
        return
    DeadLetterObject.objects.filter(pk__in=list(about.values_list("pk", flat=True))).delete()
    outdated = open_letters(source).filter(pk__in=letter_ids, objects_of_letter=None)
    _settle(outdated, DeadLetter.State.SUPERSEDED)


def try_again(letter: DeadLetter, applying: Applying) -> Change | None:
    """Apply a letter, as far as it isn't outdated.

    :returns: what was applied; None when that failed again, with the new reason noted
    """
    change = _current(letter)
    if change is None:
        return None
    failure = applying.try_alone(change)
    if failure is not None:
        letter.reason, letter.waits_for = failure.reason, failure.waits_for
        letter.attempts += 1
        letter.save(update_fields=["reason", "waits_for", "attempts"])
        return None
    _settle_applied(letter, change)
    return change


def _current(letter: DeadLetter) -> Change | None:
    """What the letter says, less what is outdated; None if it can't be read."""
    try:
        change = parse(Line(letter.offset, letter.text.encode()))
    except LineError:
        return None
    current = set(letter.objects_of_letter.values_list("key", flat=True)) | {""}
    return change._replace(objects=[data for data in change.objects if name_of(data) in current])


def _settle_applied(letter: DeadLetter, change: Change) -> None:
    _settle(DeadLetter.objects.filter(pk=letter.pk), DeadLetter.State.APPLIED)
    letter.objects_of_letter.all().delete()
    supersede(letter.source, [change], before=letter.pk)


def _waits_for(changes: Iterable[Change]) -> Q:
    saved = [data for change in changes if change.operation is Operation.SAVE for data in change.objects]
    any_of_model = {name_of_any(data["model"]) for data in saved}
    return Q(waits_for__in=any_of_model | {name_of(data) for data in saved} - {""})


def _settle(letters: QuerySet[DeadLetter], state: DeadLetter.State) -> None:
    letters.update(state=state, settled_at=timezone.now())
