"""The Celery application of a Kolibri worker: ``-A morango_celery.contrib.kolibri.worker``.

Exits with a message if something is missing, rather than wait for messages that nobody sends.
"""

from __future__ import annotations

import sys

from kolibri.plugins import config
from kolibri.utils import conf

from morango_celery.contrib.kolibri import options

PLUG_IN = "morango_celery.contrib.kolibri"


def missing() -> str | None:
    """Return a message about a worker's missing requirements, and how to meet them."""
    if PLUG_IN not in config.ACTIVE_PLUGINS or options.SECTION not in conf.OPTIONS:
        return (
            f"The plug-in isn't enabled in KOLIBRI_HOME ({conf.KOLIBRI_HOME}). "
            f"`kolibri plugin enable {PLUG_IN}` enables it; a worker needs the KOLIBRI_HOME of the server."
        )
    if conf.OPTIONS["Database"]["DATABASE_ENGINE"] == "sqlite":
        return (
            "Kolibri's database is SQLite, which has one writer: syncs are deserialized by the process that "
            "received them, and need no worker. For workers, move Kolibri to PostgreSQL."
        )
    if not conf.OPTIONS[options.SECTION][options.BROKER]:
        return (
            f"No broker is configured. Set {options.BROKER} in section [{options.SECTION}] of "
            f"{conf.KOLIBRI_HOME}/options.ini, or KOLIBRI_{options.BROKER} in the environment, to "
            "redis://host:port/0; and the same for the server."
        )
    return None


if _missing := missing():
    sys.exit(f"error: {_missing}")

from morango_celery.contrib.kolibri.application import app  # noqa: E402  (only once all is there that it needs)

__all__ = ["app"]
