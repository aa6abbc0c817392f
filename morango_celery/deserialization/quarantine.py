"""Quarantined records: they ended their workers, and are left alone until they change or somebody asks.

Nothing but the exception's path tells them. Morango clears it when a newer version of the record arrives, or
when it merges one, so that such a record is tried like any other; a run that retries errors clears it, too.
"""

from __future__ import annotations

from django.db.models import Q

from morango_celery.errors import PoisonRecordError
from morango_celery.upstream import exception_path

QUARANTINED: str = exception_path(PoisonRecordError)
"""Value of their ``deserialization_exception``, as long as they are dirty."""


def is_quarantined() -> Q:
    """Return the condition that dirty Store rows fulfil which no run is to try."""
    return Q(deserialization_exception=QUARANTINED)
