"""Our operation at the place in Kolibri's order where Kolibri's own would deserialize."""

from __future__ import annotations

from kolibri.core.auth.sync_operations import PicturePasswordCollisionOperation

from morango_celery import operations


class DeserializeOperation(operations.DeserializeOperation):
    priority = PicturePasswordCollisionOperation.priority + 0.5
    """Kolibri asks operations of higher priority first: this one before its own, which is never asked then,
    and after all those that Kolibri or other plug-ins want to be asked before. What its own does besides,
    `picture_passwords` does within the run."""
