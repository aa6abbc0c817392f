"""Columns of times, with seconds, in the admin's lists and pages."""

from __future__ import annotations

import datetime
from typing import Any

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html


def time_of(name: str, description: str = "") -> Any:
    """Return a column for a field with a time.

    :param description: heading; empty for that of the field
    """

    @admin.display(description=description or name.replace("_", " "), ordering=name, empty_value="")
    def column(row: Any) -> str:
        return moment(getattr(row, name))

    column.__name__ = name  # the admin names the column's class after it
    return column


def moment(time: datetime.datetime | None) -> str:
    """Return a time in the project's time zone, such as "2024-05-01 10:00:00"; empty for None."""
    if time is None:
        return ""
    local = timezone.localtime(time)
    return format_html('<time datetime="{}">{}</time>', local.isoformat(), f"{local:%Y-%m-%d %H:%M:%S}")
