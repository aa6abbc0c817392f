from __future__ import annotations

from django.apps import AppConfig


class SchoolConfig(AppConfig):
    name = "worker.school"
    label = "school"
    verbose_name = "School"
