from django.apps import AppConfig


class LibraryConfig(AppConfig):
    name = "tests.oplog.library"
    label = "library"
    default_auto_field = "django.db.models.AutoField"
