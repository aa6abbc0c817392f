"""The Django app of the core: the ledger, and the hooks that Morango's models need."""

from __future__ import annotations

from django.apps import AppConfig
from typing_extensions import override


class MorangoCeleryConfig(AppConfig):
    name = "morango_celery"
    verbose_name = "Morango Celery"
    default_auto_field = "django.db.models.BigAutoField"

    @override
    def ready(self) -> None:
        from morango_celery import checks, tasks  # noqa: F401  (they register themselves)
        from morango_celery.db.dialect import dialect
        from morango_celery.db.sqlite import convert_dates
        from morango_celery.deserialization import code_edits, muting
        from morango_celery.upstream import report_writes

        if dialect().runs_in_process:
            convert_dates()
        muting.install()
        report_writes(code_edits.before_update, code_edits.before_insert)
