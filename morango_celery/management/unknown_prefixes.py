"""Warning of filter prefixes that may be misspelled: nothing that is known has such a partition."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from django.core.management.base import OutputWrapper
from django.db import DatabaseError, InterfaceError
from morango.models.certificates import Certificate
from morango.models.core import Store

from morango_celery.printable import printable
from morango_celery.reading.prefixes import starts_with_any

LOOKED_AT = 20
"""Number of prefixes that are looked at, the first ones."""


def warn_of_unknown_prefixes(
    stderr: OutputWrapper, profile: str | None, prefixes: Sequence[str] | None
) -> None:
    """Write a line about the prefixes that no record and no known facility has, if there are any.

    It is no error: an empty server knows no facility before its first sync. Errors of the database are left
    to the command's own work, which comes next.
    Cost: a query for each prefix that a record has, two for each other one.
    """
    if profile is None or not prefixes:
        return
    with suppress(DatabaseError, InterfaceError):
        unknown = [prefix for prefix in prefixes[:LOOKED_AT] if not _is_known(profile, prefix)]
        if unknown:
            listed = ", ".join(map(printable, unknown))
            stderr.write(
                f"Warning: no record and no known facility of {printable(profile)} has a partition that "
                f"begins with {listed}. If it isn't misspelled, its records are yet to come."
            )


def _is_known(profile: str, prefix: str) -> bool:
    """Return True if a record lies under the prefix, or a certificate's scope has it, as a facility's own."""
    records = Store.objects.filter(starts_with_any("partition", [prefix]), profile=profile)
    facilities = Certificate.objects.filter(profile=profile, scope_params__contains=prefix)
    return records.exists() or bool(facilities.exists())
