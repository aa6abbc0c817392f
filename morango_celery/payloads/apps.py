from __future__ import annotations

from django.apps import AppConfig
from typing_extensions import override


class PayloadsConfig(AppConfig):
    name = "morango_celery.payloads"
    label = "morango_celery_payloads"
    verbose_name = "Morango Celery: large arguments of tasks"
    default_auto_field = "django.db.models.BigAutoField"

    @override
    def ready(self) -> None:
        from morango_celery.payloads import checks  # noqa: F401  (registers itself)
