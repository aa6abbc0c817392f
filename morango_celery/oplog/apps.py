from __future__ import annotations

from django.apps import AppConfig
from typing_extensions import override


class OplogConfig(AppConfig):
    name = "morango_celery.oplog"
    label = "morango_celery_oplog"
    verbose_name = "Morango Celery: log of another project"
    default_auto_field = "django.db.models.BigAutoField"

    @override
    def ready(self) -> None:
        from morango_celery.oplog import (
            checks,  # noqa: F401  (registers itself)
            recorder,
        )

        recorder.connect()
