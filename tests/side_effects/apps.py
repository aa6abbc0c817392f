from django.apps import AppConfig
from typing_extensions import override


class SideEffectsConfig(AppConfig):
    name = "tests.side_effects"
    label = "side_effects"
    default_auto_field = "django.db.models.AutoField"

    @override
    def ready(self) -> None:
        from tests.side_effects import receivers  # noqa: F401  (connects them)
