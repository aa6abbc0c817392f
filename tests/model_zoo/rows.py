"""Store rows of the model zoo, as a sync leaves them."""

from __future__ import annotations

from typing import Any

from morango.models import Store

from tests.model_zoo.models import PROFILE
from tests.support.factories import build_store_row

_MISNAMED: dict[str, Any] = {
    "heading": "Heading",
    "title": "Title",
    "count": 3,
    "order": "first",
    "user": 5,
    "mixedCase": True,
    "spaced": 0.25,
    "bare": "2026-01-02",
    "as_long_as_postgresql_lets_a_name_be_which_is_sixty_three_bytes": "2026-01-02T03:04:05Z",
    "το_όνομα_αυτού_του_πεδίου_είναι_πολύ_μακρύ": "long",
    # Of columns, and so of nothing that is in a record
    "Key": "fe" * 16,
    "select": True,
    "Group By": "1999-12-31",
    "Number": 99,
    "Price in cents": 99,
    "Cabinet Id": "fe" * 16,
    "end": "the end",
    "Text": "nothing",
    "folder": "fe" * 16,
    "cabinet": "fe" * 16,
}
"""Values for the fields of misnamed models, and different ones for the columns of the same names."""

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
    "cabinet": _MISNAMED,
    "drawer": {**_MISNAMED, "parent_id": None, "lent_to_id": None},
    "label": {**_MISNAMED, "drawer_id": None, "printed_for_id": None, "number": 1},
    "tab": {
        "front": "Front",
        "back": "Back",
        "width_mm": 12,
        "width": 99,
        "written_at": "2026-01-02T03:04:05Z",
        "cabinet_id": None,
        "cast1": "ca" * 16,
        "replace1": "ab" * 16,
    },
    "folder": {
        **_MISNAMED,
        "color": "green",
        "notes": '{"a": [1, null]}',
        "price": "12.50",
        "closed_at": "2026-01-02 03:04:05.000006(Africa/Nairobi)",
    },
    "sign": {**_MISNAMED, "text": "Mind the gap"},
    "crate": {**_MISNAMED, "cabinet_id": None},
    "album": {"owner_id": "aa" * 16, "name": "Album"},
    "track": {
        "album_id": None,
        "owner_id": "aa" * 16,
        "score": 5.0,
        "title": "A Title",
        "slug": "",
        "number": None,
    },
    "ensemble": {"kind": "whole", "whole_id": None},
    "player": {"person_id": "aa" * 16, "part": "", "seat": None},
    "choir": {"owner_id": "aa" * 16, "soloist_id": None},
    "voice": {"owner_id": "aa" * 16},
    "visit": {"began_at": "2026-01-02T03:04:05.000006Z", "changed_at": "2026-01-03T00:00:00Z"},
}

_ALSO_ITS_ID = {"lorry": "vehicle_ptr_id", "crate": "box_id", "cabinet": "code"}
"""A key whose value is the record's id as well: the row in a parent's table has the same one, and Morango
looks for targets of references there."""


def build_zoo_row(model_name: str, **arguments: Any) -> Store:
    """Return an unsaved Store row; see `tests.support.factories.build_store_row`."""
    arguments = {"partition": "model_zoo", "profile": PROFILE, **_DEFAULTS.get(model_name, {}), **arguments}
    row = build_store_row(model_name, **arguments)
    if also := _ALSO_ITS_ID.get(model_name):
        row.serialized = row.serialized.replace(
            f'"id": "{row.id}"', f'"id": "{row.id}", "{also}": "{row.id}"'
        )
    return row
