"""Kolibri's settings, and no picture password left to give to anybody."""

from django.apps import AppConfig
from kolibri.deployment.default.settings.base import *  # noqa: F403  (settings are modules of names)
from kolibri.deployment.default.settings.base import INSTALLED_APPS as KOLIBRI_APPS

INSTALLED_APPS = [*KOLIBRI_APPS, "tests.kolibri.plug_in.exhausted.Exhausted"]


class Exhausted(AppConfig):
    name = "tests.kolibri.plug_in"

    # The typing_extensions of Kolibri, which are loaded when this is imported, have no `override`
    def ready(self) -> None:  # type: ignore[explicit-override]
        from kolibri.core.auth.utils import picture_passwords

        picture_passwords.LEARNER_PICTURE_PASSWORD_LIMIT = 1
