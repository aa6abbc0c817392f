"""World of records with misnamed tables and columns, for databases drawn at random."""

from __future__ import annotations

from tests.model_zoo.rows import build_zoo_row
from tests.parity.worlds import Kind, Reference, World

_OLD = {"heading": None, "title": "old", "count": 1, "order": "old", "mixedCase": None, "spaced": 7.5}
_INVALID = ({"heading": "x" * 51}, {"title": 5 * ["x"], "user": None}, {"count": "three"}, {"bare": "today"})

FILING = World(
    (
        Kind("cabinet", 3, old=_OLD, invalid=_INVALID),
        Kind(
            "drawer",
            4,
            (
                Reference("parent_id", ("drawer",), nullable=True),
                Reference("cabinet_id", ("cabinet",)),
                Reference("lent_to_id", ("cabinet",), nullable=True),
            ),
            old=_OLD,
            invalid=_INVALID,
            is_tree=True,
        ),
        Kind(
            "label",
            3,
            (
                Reference("cabinet_id", ("cabinet",)),
                Reference("printed_for_id", ("cabinet",), nullable=True),
                Reference("drawer_id", ("drawer",), nullable=True),
            ),
            old=_OLD,
            invalid=(*_INVALID, {"number": None}),
            is_numbered=True,
            one_each="drawer_id",
        ),
        Kind(
            "tab",
            3,
            (Reference("cabinet_id", ("cabinet",), nullable=True),),
            old={"front": "old", "back": "older", "width_mm": 1, "written_at": None},
            invalid=({"width_mm": "wide"}, {"front": None}),
        ),
        Kind(
            "folder",
            2,
            (Reference("drawer_id", ("drawer",)),),
            old={**_OLD, "color": "red", "notes": "[]", "price": None},
            invalid=(*_INVALID, {"color": "blue"}, {"notes": "{"}),
        ),
        Kind("sign", 2, old={**_OLD, "text": "OLD"}, invalid=(*_INVALID, {"text": ""})),
        Kind(
            "crate",
            2,
            (Reference("cabinet_id", ("cabinet",), nullable=True),),
            old=_OLD,
            invalid=_INVALID,
            link="box_id",
        ),
    ),
    build_zoo_row,
    "model_zoo",
)
