"""Findings of the system checks."""

from __future__ import annotations

from django.core import checks
from django.db import connection


def found(*, deploy: bool = False) -> dict[str, list[str]]:
    """Return the text and hint of each error and warning, by its id, without SQLite's single writer."""
    by_id: dict[str, list[str]] = {}
    for message in checks.run_checks(tags=["morango_celery"], include_deployment_checks=deploy):
        if message.level > checks.INFO:
            by_id.setdefault(str(message.id).removeprefix("morango_celery."), []).append(
                f"{message.msg} {message.hint}"
            )
    if connection.vendor == "sqlite":
        by_id.pop("E009", None)
    return by_id
