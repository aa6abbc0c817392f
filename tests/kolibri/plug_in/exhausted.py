"""Kolibri's settings, and no picture password left to give to anybody."""

from django.apps import AppConfig
from kolibri.deployment.default.settings.base import *  # noqa: F403  (settings are modules of names)
from kolibri.deployment.default.settings.base import INSTALLED_APPS as KOLIBRI_APPS
from typing_extensions import override

INSTALLED_APPS = [*KOLIBRI_APPS, "tests.kolibri.plug_in.exhausted.Exhausted"]


class Exhausted(AppConfig):
    name = "tests.kolibri.plug_in"

    @override
    def ready(self) -> None:
        from kolibri.core.auth.utils import picture_passwords

        picture_passwords.LEARNER_PICTURE_PASSWORD_LIMIT = 1
