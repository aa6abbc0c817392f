"""System checks of ``manage.py check --deploy``: faults on networks, and on more than one machine."""

from __future__ import annotations

import os
from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Warning, register  # noqa: A004  (as Django names it)
from django.db import connection
from kombu.utils.url import parse_url

from morango_celery.checks.broker import broker_urls
from morango_celery.checks.credentials import is_guessed, unprotected, unprotected_server
from morango_celery.checks.workers import are_used
from morango_celery.conf import problems

IDENTITY = ("MORANGO_SYSTEM_ID", "MORANGO_NODE_ID")
SHORTEST_IDENTITY = 3
"""Length from which Morango takes notice of the value."""


@register("morango_celery", deploy=True)
def check_credentials(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if the broker or the database asks for no password, or for one that is easily guessed.

    Django's own checks look at SECRET_KEY.
    """
    found: list[CheckMessage] = []
    if problems():
        return found
    servers = []
    if are_used():
        options = current_app.conf.broker_transport_options or {}
        if "credential_provider" not in options:
            servers += [("Celery's broker_url", "CELERY_BROKER_URL", parts) for parts in broker_urls()]
        backend = current_app.conf.result_backend
        if isinstance(backend, str) and "://" in backend:
            servers.append(("Celery's result_backend", "CELERY_RESULT_BACKEND", parse_url(backend)))
    for what, setting, parts in servers:
        found += unprotected_server(what, setting, parts)
    database = connection.settings_dict
    if database.get("PASSWORD") and is_guessed(database["PASSWORD"], database.get("USER")):
        found.append(unprotected("DATABASES['default']", "DATABASES"))
    return found


@register("morango_celery", deploy=True)
def check_identity(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if Morango would take each machine for an instance of its own."""
    missing = [name for name in IDENTITY if len(os.environ.get(name, "").strip()) < SHORTEST_IDENTITY]
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
