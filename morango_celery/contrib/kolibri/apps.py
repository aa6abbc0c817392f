from __future__ import annotations

from django.apps import AppConfig
from typing_extensions import override


class KolibriPluginConfig(AppConfig):
    name = "morango_celery.contrib.kolibri"

    @override
    def ready(self) -> None:
        from morango_celery.checks.operations import ASKED_BY
        from morango_celery.contrib.kolibri import (
            application,  # noqa: F401  (what the server's threads send with)
            checks,
            equivalents,
            picture_passwords,
        )
        from morango_celery.signals import first_pass_failed

        ASKED_BY.add("kolibri.core.auth.sync_operations:KolibriSyncOperations")
        first_pass_failed.connect(picture_passwords.give_way)
        checks.warn_of_missing_broker()
        equivalents.declare_all()
