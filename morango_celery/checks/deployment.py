"""``manage.py check --deploy``: what hurts only where others can reach it, or on more than one machine."""

from __future__ import annotations

import os
from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Warning, register  # noqa: A004  (as Django names it)
from django.db import connection
from kombu.utils.url import parse_url

from morango_celery.checks.broker import broker_urls
from morango_celery.checks.workers import are_used
from morango_celery.conf import problems, settings

GUESSED = {
    "",
    "admin",
    "changeme",
    "guest",
    "morango",
    "password",
    "postgres",
    "redis",
    "root",
    "secret",
    "test",
}
"""What is tried first by whoever finds a server."""

OVER_TCP = ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp")

IDENTITY = ("MORANGO_SYSTEM_ID", "MORANGO_NODE_ID")
SHORTEST_IDENTITY = 3
"""Morango takes no notice of fewer characters."""


@register("morango_celery", deploy=True)
def check_credentials(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """That the broker, and what else this app keeps data in, asks for a password that nobody guesses.

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
    if settings.PAYLOAD_BACKEND == "redis":
        where = "MORANGO_CELERY['PAYLOAD_LOCATION']"
        servers.append((where, where, parse_url(settings.PAYLOAD_LOCATION)))
    for what, setting, parts in servers:
        if parts["transport"] in OVER_TCP and _is_guessed(parts["password"], parts["userid"]):
            found.append(_unprotected(f"{what} ({parts['transport']}://{parts['hostname']})", setting))
    database = connection.settings_dict
    if database.get("PASSWORD") and _is_guessed(database["PASSWORD"], database.get("USER")):
        found.append(_unprotected("DATABASES['default']", "DATABASES"))
    return found


def _is_guessed(password: str | None, user: str | None) -> bool:
    return (password or "").lower() in GUESSED or password == user


def _unprotected(what: str, setting: str) -> Warning:
    return Warning(
        f"{what} has no password, or one that is tried first: whoever reaches that server can read and "
        "change what is in it.",
        hint=f"Give the server a long random password (Redis: requirepass), and {setting} the same.",
        id="morango_celery.W006",
    )


@register("morango_celery", deploy=True)
def check_identity(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """That all machines are one instance to Morango, which else takes each for a device of its own."""
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
