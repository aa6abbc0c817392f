from django.apps import AppConfig
from django.db.models.signals import pre_migrate
from typing_extensions import override

from tests.support.schemas import create_other_schema


class LibraryConfig(AppConfig):
    name = "tests.library"
    label = "library"
    default_auto_field = "django.db.models.AutoField"

    @override
    def ready(self) -> None:
        pre_migrate.connect(create_other_schema, sender=self)
