"""Errors of PostgreSQL's driver, whichever is in use."""

from __future__ import annotations

from typing import Any

import psycopg2.errors
from django.db import connection

from morango_celery.db.driver import is_psycopg3


def driver_error(sqlstate: str) -> Exception:
    """Return the driver's error of that SQLSTATE, as one that PostgreSQL has raised."""
    driver: Any = connection
    errors = driver.Database.errors if is_psycopg3() else psycopg2.errors
    error: Exception = errors.lookup(sqlstate)(f"SQLSTATE {sqlstate}")
    return error
