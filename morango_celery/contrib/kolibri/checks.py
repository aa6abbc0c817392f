"""Checks of Kolibri's configuration: by ``kolibri manage check``, and at each start."""

from __future__ import annotations

import logging
from typing import Any

import kolibri
from django.core.checks import CheckMessage, Warning, register  # noqa: A004  (as Django names it)
from kolibri.utils import conf

from morango_celery.contrib.kolibri import options
from morango_celery.db.dialect import dialect

logger = logging.getLogger(__name__)

KOLIBRI_VERSION = "0.19.5"

NO_BROKER = (
    "Syncs are deserialized by the process that receives them, and not by workers, because no broker is "
    "configured."
)
NAME_A_BROKER = (
    f"Set {options.BROKER} in section [{options.SECTION}] of options.ini, or KOLIBRI_{options.BROKER} in the "
    "environment, to redis://host:port/0."
)


def lacks_broker() -> bool:
    return not dialect().has_one_writer and not conf.OPTIONS[options.SECTION][options.BROKER]


def warn_of_missing_broker() -> None:
    if lacks_broker():
        logger.warning("%s %s", NO_BROKER, NAME_A_BROKER)


@register("morango_celery")
def check_kolibris_broker(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that a server on PostgreSQL has workers to send to."""
    if not lacks_broker():
        return []
    return [Warning(NO_BROKER, hint=NAME_A_BROKER, id="morango_celery.kolibri.W001")]


@register("morango_celery")
def check_kolibris_version(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the deserializing of this version of Kolibri is known; other versions may do more."""
    if kolibri.__version__ == KOLIBRI_VERSION:
        return []
    return [
        Warning(
            f"Kolibri is {kolibri.__version__}; what the plug-in does in its place is what {KOLIBRI_VERSION} "
            "does.",
            hint="Use a version of morango-celery that is made for this Kolibri, or disable the plug-in.",
            id="morango_celery.kolibri.W002",
        )
    ]
