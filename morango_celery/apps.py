from __future__ import annotations

from django.apps import AppConfig


class MorangoCeleryConfig(AppConfig):
    name = "morango_celery"
    verbose_name = "Morango Celery"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from morango_celery import checks  # noqa: F401  (registers itself)
        from morango_celery.deserialize import muting
        from morango_celery.oplog import recorder

        muting.install()
        recorder.connect()
