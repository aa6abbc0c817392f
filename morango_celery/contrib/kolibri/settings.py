"""The plug-in's additions to Kolibri's Django settings.

For more, such as STALLED_AFTER_SECONDS, write a settings module that begins with all of Kolibri's (``from
kolibri.deployment.default.settings.base import *``), and name it in DJANGO_SETTINGS_MODULE.
"""

from kolibri.utils import conf

from morango_celery.celery_settings import *  # noqa: F403  (settings are modules of names)
from morango_celery.contrib.kolibri import options

_chosen = conf.OPTIONS[options.SECTION]

INSTALLED_APPS = ["morango_celery"]

CELERY_BROKER_URL = _chosen[options.BROKER]

MORANGO_CELERY = {
    "MODE": _chosen[options.MODE],
    "IN_PROCESS": None if CELERY_BROKER_URL else True,
}
