"""Reading of the environment variables that configure a deployment; errors name the faulty one."""

from __future__ import annotations

import os
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

Default = TypeVar("Default", bound=int | None)

SQLITE_TIMEOUT_SECONDS = 20
"""Time that a SQLite connection waits for the one writer before "database is locked"."""

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def required(name: str, hint: str) -> str:
    """Return a variable's value; an empty one counts as missing.

    :param hint: the value to set, for the error's reader
    :raises ImproperlyConfigured: it is missing
    """
    value = os.environ.get(name, "").strip()
    if not value:
        raise ImproperlyConfigured(f"The environment variable {name} is not set. {hint}")
    return value


def flag(name: str, default: bool = False) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise ImproperlyConfigured(f"The environment variable {name} must be 1 or 0, not {value!r}.")


def whole_number(name: str, default: Default, minimum: int = 1) -> int | Default:
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or int(value) < minimum:
        raise ImproperlyConfigured(
            f"The environment variable {name} must be a whole number from {minimum}, not {value!r}."
        )
    return int(value)


def words(name: str, default: str = "") -> list[str]:
    """Return the comma-separated parts of a variable, without the empty ones."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def log_level(name: str = "LOG_LEVEL") -> str:
    """Return the name of a level that Python's logging knows; INFO by default."""
    value = os.environ.get(name, "").strip().upper() or "INFO"
    if value not in LOG_LEVELS:
        raise ImproperlyConfigured(
            f"The environment variable {name} must be one of {', '.join(LOG_LEVELS)}, not {value!r}."
        )
    return value


def database(name: str = "DATABASE_URL") -> dict[str, Any]:
    """Return an entry of DATABASES from ``postgresql://user:password@host:port/name?option=value``,
    ``sqlite:////absolute/path``, ``sqlite:///relative/path`` or ``sqlite://`` (in memory).

    Special characters in user, password, host and name are percent-encoded, so that a folder of
    sockets (``%2Fvar%2Frun%2Fpostgresql``) can be the host. Options go to libpq.

    :raises ImproperlyConfigured: the variable is missing or isn't such a URL; never shows a password
    """
    url = required(name, "Set it to postgresql://user:password@host:port/name or sqlite:///path.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ImproperlyConfigured(f"The environment variable {name} is not a URL.") from None
    if parts.scheme == "sqlite" and not parts.netloc:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path).removeprefix("/") or ":memory:",
            "OPTIONS": {"timeout": SQLITE_TIMEOUT_SECONDS},
        }
    if parts.scheme in ("postgresql", "postgres") and parts.path.strip("/"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path).removeprefix("/"),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or ""),
            "PORT": str(port or ""),
            "OPTIONS": {"connect_timeout": 10, **dict(parse_qsl(parts.query))},
        }
    raise ImproperlyConfigured(
        f"The environment variable {name} must look like postgresql://user:password@host:port/name or "
        f"sqlite:///path; this one has the scheme {parts.scheme!r}"
        + ("." if parts.path.strip("/") else " and names no database.")
    )
