"""The machine of the figures, and other load on it."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import version
from typing import Any

import psycopg2
from redis import Redis

BUSY_LOAD = 0.5
"""A load average above it, before anything is measured, is somebody else's work."""


def describe(postgres_url: str | None, redis_url: str) -> str:
    """Processors, versions and load, in one line."""
    packages = ", ".join(f"{name} {version(name.lower())}" for name in ("Django", "Morango", "Celery"))
    with Redis.from_url(redis_url) as client:
        redis_version = client.info("server")["redis_version"]
    postgres = f"PostgreSQL {_postgres_version(postgres_url)}, " if postgres_url else ""
    return (
        f"{len(os.sched_getaffinity(0))} CPUs ({_processor()}), {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {packages}, {postgres}"
        f"SQLite {sqlite3.sqlite_version}, Redis {redis_version}, load {os.getloadavg()[0]:.2f}"
    )


def warning(load: float) -> str | None:
    """Return a warning for readers of figures that were measured at this load average, or None."""
    if load <= BUSY_LOAD:
        return None
    return (
        f"warning: the load average is {load:.2f} before anything is measured. Something else is running, "
        "and the figures will be worse than they should be."
    )


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(models, "unknown")


def _postgres_version(url: str) -> str:
    connection: Any = psycopg2.connect(url)
    try:
        number: int = connection.server_version
    finally:
        connection.close()
    return f"{number // 10000}.{number % 10000}"
