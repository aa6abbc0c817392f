"""Store rows of the variety, as a sync leaves them."""

from __future__ import annotations

from typing import Any

from morango.models import Store

from tests.factories import build_store_row
from tests.variety.models import PROFILE

_DEFAULTS: dict[str, dict[str, Any]] = {
    "region": {"kind": "region", "parent_id": None, "name": "Region"},
    "town": {"kind": "town", "parent_id": None, "name": "Town"},
    "person": {"name": "Ada Example", "initials": ""},
    "card": {"issued_at_id": None},
    "club": {"president_id": None, "name": "Club"},
    "member": {"number": 1},
    "lorry": {"owner_id": None, "load_kg": 900},
    "step": {"trail": "north", "number": 1},
    "letter": {"closed": False, "text": "", "sender_id": None},
    "reading": {
        "day": None,
        "moment": None,
        "small": 0,
        "big": 0,
        "positive": 0,
        "positive_small": 0,
        "positive_big": 0,
        "checked": None,
    },
    "visit": {"began_at": "2026-01-02T03:04:05.000006Z", "changed_at": "2026-01-03T00:00:00Z"},
}


def build_variety_row(model_name: str, **arguments: Any) -> Store:
    """An unsaved Store row; see `tests.factories.build_store_row`."""
    arguments = {"partition": "variety", "profile": PROFILE, **_DEFAULTS.get(model_name, {}), **arguments}
    row = build_store_row(model_name, **arguments)
    if model_name == "lorry":
        # The row in the parent's table goes by the same id.
        row.serialized = row.serialized.replace(
            f'"id": "{row.id}"', f'"id": "{row.id}", "vehicle_ptr_id": "{row.id}"'
        )
    return row
