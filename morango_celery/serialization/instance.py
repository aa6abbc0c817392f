"""Identity of this instance, which Morango's counters count for."""

from __future__ import annotations

from django.db import transaction
from morango.models.core import DatabaseIDModel, InstanceIDModel

from morango_celery.serialization.sql import lock_table


def identify_once() -> None:
    """Give a new database its identity before two serializations do so: Morango can't go on with two."""
    if not DatabaseIDModel.objects.filter(current=True).exists():
        with transaction.atomic():
            lock_table(DatabaseIDModel)
            DatabaseIDModel.get_or_create_current_database_id()


def identify() -> str:
    """Return the id of the current instance, which is made if the database or this machine is a new one.

    Cost: five statements and more. A process needs them once.
    """
    identify_once()
    instance_id: str = InstanceIDModel.get_or_create_current_instance()[0].id
    return instance_id
