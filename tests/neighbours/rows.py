"""Store rows of these models, as a sync leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from morango.models import Store

from tests.neighbours.models import PROFILE
from tests.support.factories import build_store_row

_DEFAULTS: dict[str, dict[str, Any]] = {
    "place": {"parent_id": None},
    "shelf": {"parent_id": None},
    "entry": {"parent_id": None},
    "link": {"parent_id": None},
    "heap": {"parent_id": None},
    "vote": {"subject": "lunch"},
    "branch": {"parent_id": None},
    "country": {"parent_id": None, "country_id": None, "kind": "country"},
    "city": {"parent_id": None, "country_id": None, "kind": "city"},
    "guest": {"city_id": None},
}


def build_row(model_name: str, **arguments: Any) -> Store:
    """Return an unsaved Store row; see `tests.support.factories.build_store_row`."""
    fields = {"name": model_name, "partition": "neighbours", **_DEFAULTS.get(model_name, {}), **arguments}
    return build_store_row(model_name, profile=PROFILE, **fields)


def renamed(row: Store, name: str) -> Store:
    """Return what a later sync brings of a record: the same with another name."""
    return Store(
        **{
            **{field.attname: getattr(row, field.attname) for field in Store._meta.concrete_fields},
            "serialized": json.dumps({**json.loads(row.serialized), "name": name}),
            "dirty_bit": True,
        }
    )


def renamed_all(rows: Sequence[Store]) -> list[Store]:
    return [renamed(row, f"new {json.loads(row.serialized)['name']}") for row in rows]


def build_tree(model_name: str, levels: Sequence[int], **arguments: Any) -> list[Store]:
    """Return a tree's rows, parents first: so many on each level, each below one of the level above."""
    above: list[Store] = []
    rows: list[Store] = []
    for level, number in enumerate(levels):
        row = [
            build_row(
                model_name,
                name=f"{level}.{place}",
                parent_id=above[place % len(above)].id if above else None,
                **arguments,
            )
            for place in range(number)
        ]
        rows += row
        above = row
    return rows
