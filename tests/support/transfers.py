"""Transfer sessions, as Morango makes them for a device that connects."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone
from morango.models import SyncSession, TransferSession


def new_transfer(profile: str, sync_filter: str, *, push: bool = True, **columns: Any) -> TransferSession:
    """Return a new transfer session, with a sync session of its own."""
    now = timezone.now()
    sync_session = SyncSession.objects.create(
        id=uuid.uuid4().hex,
        profile=profile,
        connection_kind="network",
        connection_path="http://127.0.0.1",
        last_activity_timestamp=now,
    )
    return TransferSession.objects.create(
        id=uuid.uuid4().hex,
        filter=sync_filter,
        push=push,
        sync_session=sync_session,
        last_activity_timestamp=now,
        **columns,
    )
