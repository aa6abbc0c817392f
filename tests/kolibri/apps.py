"""Kolibri as its users have it: with the equivalents that the plug-in declares."""

from __future__ import annotations

from django.apps import AppConfig
from typing_extensions import override


class KolibriTestsConfig(AppConfig):
    name = "tests.kolibri"
    label = "kolibri_tests"

    @override
    def ready(self) -> None:
        from morango_celery.contrib.kolibri.equivalents import declare_all

        declare_all()
