"""Sync filters: from whatever a caller has to Morango's `Filter`, and from that to conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from django.db.models import Q
from morango.models.certificates import Filter

from morango_celery.errors import InvalidFilterError

PartitionOrder = Literal["asc", "desc"]


def parse_filter(value: Filter | str | Iterable[str] | None) -> Filter | None:
    """Morango's `Filter` from one, from a text of prefixes, or from several prefixes.

    None stands for the whole profile. A `Filter` is taken as it is, even the empty one.

    :raises InvalidFilterError: a prefix that is empty or can't be the beginning of a partition
    """
    if value is None or isinstance(value, Filter):
        return value
    prefixes = value.split("\n") if isinstance(value, str) else list(value)
    if not prefixes:
        raise InvalidFilterError("The filter has no prefix. Leave it out to take the whole profile.")
    return Filter("\n".join(_checked(prefix) for prefix in prefixes))


def _checked(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise InvalidFilterError(f"A filter prefix is a text, not {prefix!r}.")
    if not prefix.strip():
        raise InvalidFilterError(
            "An empty filter prefix would match every partition. Leave the filter out to mean that."
        )
    if "${" in prefix:
        raise InvalidFilterError(
            f"The filter prefix {prefix!r} is an unfilled template: put a value in place of ${{...}}."
        )
    if any(character.isspace() or not character.isprintable() for character in prefix):
        raise InvalidFilterError(
            f"The filter prefix {prefix!r} contains white space or a control character; "
            "partitions don't. Give several prefixes separately."
        )
    return prefix


def prefix_conditions(field: str, sync_filter: Filter | None, order: PartitionOrder = "asc") -> Iterator[Q]:
    """One condition on `field` per prefix of the filter, no two of which match the same row.

    A prefix that lies within another adds nothing and gets none. Prefixes that differ in case only
    overlap where the database compares so (SQLite's LIKE): the later one excludes the earlier.
    """
    if sync_filter is None:
        yield Q()
        return
    yielded: list[str] = []
    for prefix in _outermost(sync_filter, order):
        condition = Q(**{f"{field}__startswith": prefix}) if prefix else Q()
        for earlier in yielded:
            if _nested(_folded(prefix), _folded(earlier)):
                condition &= ~Q(**{f"{field}__startswith": earlier})
        yield condition
        yielded.append(prefix)


def _outermost(sync_filter: Filter, order: PartitionOrder) -> list[str]:
    outermost: list[str] = []
    for prefix in sorted(sync_filter):
        if not (outermost and prefix.startswith(outermost[-1])):
            outermost.append(prefix)
    return outermost if order == "asc" else outermost[::-1]


def _folded(prefix: str) -> bytes:
    """SQLite's LIKE takes the letters of ASCII for the same in both cases, and no others."""
    return prefix.encode("utf-8", "surrogatepass").lower()


def _nested(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)
