from django.apps import AppConfig


class VarietyConfig(AppConfig):
    name = "tests.variety"
    label = "variety"
    default_auto_field = "django.db.models.AutoField"
