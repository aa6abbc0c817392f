"""Passwords that an intruder tries first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import Warning  # noqa: A004  (as Django names it)

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
"""Passwords that are tried first, in lower case."""

OVER_TCP = ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp")


def unprotected_server(what: str, setting: str, parts: Mapping[str, Any]) -> Iterator[Warning]:
    """Yield a warning if a server asks for no password, or for one that is easily guessed.

    :param parts: parts of its URL, as kombu's ``parse_url`` returns them
    """
    if parts["transport"] in OVER_TCP and is_guessed(parts["password"], parts["userid"]):
        yield unprotected(f"{what} ({parts['transport']}://{parts['hostname']})", setting)


def is_guessed(password: str | None, user: str | None) -> bool:
    return (password or "").lower() in GUESSED or password == user


def unprotected(what: str, setting: str) -> Warning:
    return Warning(
        f"{what} has no password, or one that is tried first: whoever reaches that server can read and "
        "change what is in it.",
        hint=f"Give the server a long random password (Redis: requirepass), and {setting} the same.",
        id="morango_celery.W006",
    )
