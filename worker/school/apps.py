from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models.signals import post_migrate
from typing_extensions import override


class SchoolConfig(AppConfig):
    name = "worker.school"
    label = "school"
    verbose_name = "School"

    @override
    def ready(self) -> None:
        post_migrate.connect(_identify_once, sender=self)


def _identify_once(using: str, plan: object = None, **kwargs: Any) -> None:
    """Give a new database its identity in ``migrate``, before several processes serve it.

    Two processes that are asked at once would create two identities, and Morango can't work with these.
    """
    from morango.models.core import DatabaseIDModel

    from morango_celery.serialization.instance import identify_once

    if plan is None or using != DEFAULT_DB_ALIAS:  # it was `flush`, which leaves nothing behind
        return
    if DatabaseIDModel._meta.db_table in connection.introspection.table_names():
        identify_once()
