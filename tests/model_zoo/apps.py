from django.apps import AppConfig
from django.db.models.signals import pre_migrate
from typing_extensions import override

from tests.support.schemas import create_other_schema


class ModelZooConfig(AppConfig):
    name = "tests.model_zoo"
    label = "model_zoo"
    default_auto_field = "django.db.models.AutoField"

    @override
    def ready(self) -> None:
        from tests.model_zoo.declared import declare_all

        pre_migrate.connect(create_other_schema, sender=self)
        declare_all()
