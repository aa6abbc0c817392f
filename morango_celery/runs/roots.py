"""Roots of errors: records because of which others fail, as the errors of those others name them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import ProgrammingError, connection, transaction
from django.db.models import F, Q, QuerySet, Window
from django.db.models.functions import Left, RowNumber
from morango.errors import MorangoDirtyParent, MorangoMissingParent
from morango.models.core import Store

from morango_celery.db.errors import is_permission_denied

READ_RECORDS = 100
"""Number of records of each group that are read."""
MAX_TARGETS = 10
"""Number of the records that a group's errors name which are looked up, the most frequent."""
MAX_ROOTS = 3
"""Number of a group's roots, the most frequent."""
MAX_STEPS = 10
"""Number of steps from a record to the one because of which it fails."""
READ_CHARACTERS = 500

CAUSE = ("profile", "model_name", "deserialization_exception")
Cause = tuple[str, str, str]
"""Profile, name of the model and path of the exception that the records of a group have in common."""

_ABOUT_PARENTS = tuple(
    f"{error.__module__}.{error.__qualname__}" for error in (MorangoDirtyParent, MorangoMissingParent)
)
_TOLD = {
    " failed to deserialize": re.compile(r"(?P<name>[^\['\"]+) with id (?P<id>\S+) failed to deserialize"),
    " references non-existent ": re.compile(
        r" references non-existent (?P<name>.+) instance with id '(?P<id>[^']+)'"
    ),
    ") is not present in table ": re.compile(  # PostgreSQL's words
        r"\)=\((?P<id>[^)]+)\) is not present in table \"(?P<name>[^\"]+)\""
    ),
    " refers to ": re.compile(r" refers to '(?P<id>[^']+)', which (?P<name>\S+) doesn't have"),
}
"""Patterns of texts that name a record, by a part that the database looks for."""


class Target(NamedTuple):
    """A record that another one refers to."""

    name: str
    """Name of its model or table."""
    id: str


@dataclass(frozen=True)
class Root:
    """A record because of which others fail, and which fails for no other."""

    model_name: str
    store_id: str
    count: int
    """Number of records that fail because of it, among the first `READ_RECORDS` of their group."""
    is_missing: bool
    """True if the Store doesn't have it."""
    is_dirty: bool = False
    exception: str | None = None
    """Path of the class of its own error; None if it isn't in error."""

    @property
    def text(self) -> str:
        """Like "unit 01ab, which is in error itself (ValidationError)"."""
        if self.is_missing:
            state = "which the Store doesn't have"
        elif self.exception is not None:
            state = f"which is in error itself ({self.exception.rpartition('.')[2]})"
        else:
            state = "which still waits" if self.is_dirty else "which is deserialized by now"
        return f"{self.model_name} {self.store_id}, {state}"

    def share_of(self, number: int) -> str:
        """Like "12 of 40", or "at least 12 of 500" where not all records of the group were read.

        :param number: number of the group's records
        """
        return f"{'at least ' if number > READ_RECORDS else ''}{self.count} of {number:,}"


class _Found(NamedTuple):
    """A record that errors name, as the Store has it."""

    model_name: str
    is_dirty: bool
    exception: str | None
    because_of: Target | None
    """The record that its own error names, if any."""


_Records = dict[str, _Found | None]
"""Records by their ids; None for those that the Store doesn't have."""

_COLUMNS = ("pk", "model_name", "dirty_bit", "deserialization_exception", "_self_ref_fk", "begins")
_ID = re.compile("[0-9a-f]{32}")


def roots_by_cause(records: QuerySet[Any]) -> dict[Cause, list[Root]]:
    """Return the roots of groups of records in error, the most frequent first; none where errors name none.

    A role that may not read the columns which tell them finds none: the monitoring role of 0.2.0 is one.

    :param records: query of Store rows in error
    Cost: one query for the first records of all groups, and one for each step from records to their roots;
        a savepoint.
    """
    try:
        with transaction.atomic():
            return _roots_by_cause(records)
    except ProgrammingError as error:
        if not is_permission_denied(error):
            raise
        return {}


def _roots_by_cause(records: QuerySet[Any]) -> dict[Cause, list[Root]]:
    named: dict[Cause, Counter[Target]] = {}
    for cause, target in _named(records):
        named.setdefault(cause, Counter())[target] += 1
    chosen = {cause: targets.most_common(MAX_TARGETS) for cause, targets in named.items()}
    found = _looked_up({target for targets in chosen.values() for target, _ in targets})
    return {cause: _roots(targets, found) for cause, targets in chosen.items()}


def _named(records: QuerySet[Any]) -> Iterator[tuple[Cause, Target]]:
    """Yield the records that the errors of the first ones of each group name."""
    telling = Q(deserialization_exception__in=_ABOUT_PARENTS)
    for part in _TOLD:
        telling |= Q(begins__contains=part)
    place = Window(RowNumber(), partition_by=list(map(F, CAUSE)), order_by=F("pk").asc())
    begins = Left("deserialization_error", READ_CHARACTERS)
    rows = records.order_by().annotate(begins=begins).filter(telling).annotate(place=place)
    sql, parameters = rows.values_list(*CAUSE, "_self_ref_fk", "begins", "place").query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT * FROM ({sql}) AS numbered WHERE numbered.place <= %s",  # noqa: S608  (Django's)
            [*parameters, READ_RECORDS],
        )
        for profile, model_name, exception, parent_id, text, _ in cursor.fetchall():
            target = _told(model_name, exception, parent_id, text)
            if target is not None:
                yield (profile, model_name, exception), target


def _told(model_name: str, exception: str, parent_id: str, text: str) -> Target | None:
    """Return the record that an error names; None if it names none."""
    if exception in _ABOUT_PARENTS:
        return Target(model_name, parent_id) if parent_id else None
    for part, pattern in _TOLD.items():
        if part in text and (match := pattern.search(text)):
            return Target(match["name"], match["id"])
    return None


def _looked_up(targets: Collection[Target]) -> _Records:
    """Return these records, and those that they fail because of, by their ids."""
    found: _Records = {}
    wanted = {target.id for target in targets}
    for _ in range(MAX_STEPS):
        if not wanted:
            break
        found.update(dict.fromkeys(wanted))
        ids = sorted(each for each in wanted if _ID.fullmatch(each))
        wanted = set()
        begins = Left("deserialization_error", READ_CHARACTERS)
        for row in Store.objects.filter(pk__in=ids).annotate(begins=begins).values_list(*_COLUMNS):
            store_id, model_name, is_dirty, exception, parent_id, text = row
            in_error = exception if is_dirty else None
            because_of = _told(model_name, in_error, parent_id, text or "") if in_error else None
            found[store_id] = _Found(model_name, is_dirty, in_error, because_of)
            if because_of:
                wanted.add(because_of.id)
        wanted -= found.keys()
    return found


def _roots(targets: list[tuple[Target, int]], found: _Records) -> list[Root]:
    counts: Counter[Target] = Counter()
    for target, count in targets:
        counts[_followed(target, found)] += count
    return [_root(target, count, found.get(target.id)) for target, count in counts.most_common(MAX_ROOTS)]


def _followed(target: Target, found: _Records) -> Target:
    """Return the last record in the chain that begins with a target; one of them if they form a circle."""
    passed: set[str] = set()
    while target.id not in passed:
        passed.add(target.id)
        state = found.get(target.id)
        if state is None or state.because_of is None or state.because_of.id not in found:
            break
        target = state.because_of
    state = found.get(target.id)
    return target if state is None else Target(state.model_name, target.id)


def _root(target: Target, count: int, state: _Found | None) -> Root:
    if state is None:
        return Root(target.name, target.id, count, is_missing=True)
    return Root(
        target.name, target.id, count, is_missing=False, is_dirty=state.is_dirty, exception=state.exception
    )
