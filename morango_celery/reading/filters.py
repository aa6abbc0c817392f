"""Sync filters: Morango's `Filter` from a caller's value, and conditions from a `Filter`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from django.db.models import Q
from django.db.models.expressions import OrderBy
from morango.models.certificates import Filter

from morango_celery.errors import InvalidFilterError
from morango_celery.reading.prefixes import by_prefix, outermost, starts_with_any

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


def under_filter(field: str, sync_filter: Filter | None) -> Q:
    """Return the condition that a row's partition, in `field`, lies under the filter."""
    return Q() if sync_filter is None else starts_with_any(field, outermost(sync_filter))


def overlap(first: Filter | None, second: Filter | None) -> bool:
    """Return True if a partition may lie under both filters. None stands for the whole profile."""
    if first is None or second is None:
        return True
    return any(
        one.startswith(other) or other.startswith(one)
        for one in outermost(first)
        for other in outermost(second)
    )


def partition_order(field: str, sync_filter: Filter | None, order: PartitionOrder) -> list[str | OrderBy]:
    """Return the order of rows under the filter: prefix by prefix, and then partition by partition."""
    partitions = f"-{field}" if order == "desc" else field
    prefixes = outermost(sync_filter or ())
    if len(prefixes) < 2:
        return [partitions]
    return [by_prefix(field, prefixes, descending=order == "desc"), partitions]
