from django.apps import AppConfig


class SideEffectsConfig(AppConfig):
    name = "tests.side_effects"
    label = "side_effects"
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        from tests.side_effects import receivers  # noqa: F401  (connects them)
