"""Statements and runs in this process."""

from __future__ import annotations

from typing import Any

from django.db import connection

import morango_celery
from morango_celery.models import Run
from worker.school.models import PROFILE


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def deserialize(profile: str = PROFILE, **options: Any) -> Run:
    return morango_celery.deserialize(profile, in_process=True, **options)
