"""Store rows of these models, as a sync leaves them."""

from __future__ import annotations

from typing import Any

from morango.models import Store

from tests.side_effects.deeds import DEEDS
from tests.side_effects.models import PROFILE
from tests.support.factories import build_store_row

KINDS = ("item", "slip", "order", "late")
"""Names of the models of numbered rows, in the order in which they are synced."""

_SCRIPT = {"moment": "", "deed": "", "target": "", "number": 0}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "echo": {"times": 0},
    "item": {"number": 0, "next_name": ""},
    "part": {"deed": "", "target": ""},
    "label": {"item_id": None},
    "slip": {**_SCRIPT, "item_id": None},
    "order": {**_SCRIPT, "slip_id": None},
    "late": {"number": 0, "order_id": None},
    "counted": {},
    "seat": {"team": "", "item_id": None, "place": "side_effects"},
}


def build_row(model_name: str, name: str, **arguments: Any) -> Store:
    """Return an unsaved Store row. Its id follows from its model and name.

    :param arguments: see `tests.support.factories.build_store_row`
    """
    fields = {**_DEFAULTS[model_name], "name": name, **arguments}
    return build_store_row(model_name, source_id=name, partition="side_effects", profile=PROFILE, **fields)


def one_for_each_deed(kind: str, *, to: str = "", **fields: Any) -> list[Store]:
    """Return a record for each deed.

    :param to: beginning of the names of the rows that they do it to; the names end with the deed
    """
    return [build_row(kind, f"{kind} does {deed}", deed=deed, target=to + deed, **fields) for deed in DEEDS]


def all_that_is_written(name: str = "", **fields: Any) -> list[Store]:
    """Return a record of each kind for each deed, to do it to.

    :param name: beginning of their names
    """
    rows = []
    for deed in DEEDS:
        rows += [build_row(kind, name + deed, **fields) for kind in KINDS]
        rows.append(build_row("label", name + deed, item=rows[-len(KINDS)], **fields))
    return rows
