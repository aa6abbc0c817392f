"""System check of ``manage.py check --deploy``: faults on more than one machine."""

from __future__ import annotations

import os
from typing import Any

from django.core.checks import CheckMessage, Warning, register  # noqa: A004  (as Django names it)

from morango_celery.checks.workers import are_used

IDENTITY = ("MORANGO_SYSTEM_ID", "MORANGO_NODE_ID")
MIN_IDENTITY = 3
"""Length from which Morango takes notice of the value."""


@register("morango_celery", deploy=True)
def check_identity(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if Morango would take each machine for an instance of its own."""
    missing = [name for name in IDENTITY if len(os.environ.get(name, "").strip()) < MIN_IDENTITY]
    if not are_used() or not missing:
        return []
    return [
        Warning(
            f"The environment has no {' and no '.join(missing)}: each machine or container that serializes, "
            "workers included, is another instance to Morango, and a new one whenever it is made anew; each "
            "adds a counter to every record that it touches.",
            hint=f"Set {' and '.join(IDENTITY)} to the same values wherever this project runs.",
            id="morango_celery.W007",
        )
    ]
