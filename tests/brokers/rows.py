"""Records that these tests wait for, and their patience."""

from __future__ import annotations

from morango.models import Store

LIMIT_SECONDS = 45
"""Time within which a sender gives up, on a machine under load; without limits it would be no time at all."""


def first(model_name: str) -> str:
    return str(Store.objects.filter(model_name=model_name, dirty_bit=True).earliest("id").id)
