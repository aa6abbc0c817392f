"""Kolibri's settings, and a worker that dies in the middle of a repair: all is written, nothing committed."""

import os
import signal
from typing import Any

from django.apps import AppConfig
from kolibri.deployment.default.settings.base import *  # noqa: F403  (settings are modules of names)
from kolibri.deployment.default.settings.base import INSTALLED_APPS as KOLIBRI_APPS
from typing_extensions import override

INSTALLED_APPS = [*KOLIBRI_APPS, "tests.kolibri.plug_in.dying.Dying"]


class Dying(AppConfig):
    name = "tests.kolibri.plug_in"

    @override
    def ready(self) -> None:
        from morango_celery.signals import first_pass_failed

        first_pass_failed.connect(die)  # after the plug-in, which comes before


def die(**_: Any) -> None:
    print("dying in the middle of a repair", flush=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)
