"""The plug-in's additions to Kolibri's ``options.ini``; each option is also an environment variable.

A variable is named after its option, with ``KOLIBRI_`` before it.
"""

from __future__ import annotations

from typing import Any

SECTION = "MorangoCelery"
BROKER = "CELERY_BROKER_URL"
MODE = "MORANGO_CELERY_MODE"

option_spec: dict[str, dict[str, dict[str, Any]]] = {
    SECTION: {
        BROKER: {
            "type": "string",
            "default": "",
            "description": """
                URL of the Redis that tells workers what to do, such as redis://localhost:6379/0. Without it,
                and on SQLite, syncs are deserialized by the process that received them.
            """,
        },
        MODE: {
            "type": "option",
            "options": ("await", "detach", "compare"),
            "default": "await",
            "description": """
                Whether a sync ends after its records are deserialized ('await'), or before ('detach'), and so
                without what Kolibri does with them at the end of a sync, such as notifications. With
                'compare', Kolibri deserializes as without this plug-in, and workers compare one sync in a
                hundred.
            """,
        },
    },
}
