"""The log of objects that is ingested: ``python -m bench.log FILE LINES`` writes it.

Of a hundred lines, about eighty bring a new object of a school, twelve change one, and eight delete one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from bench.data import StoreRow


def lines(records: int) -> Iterator[str]:
    """So many lines about a school."""
    from bench.data import school

    return islice((line for row in school(records) for line in _about(row)), records)


def _about(row: StoreRow) -> Iterator[str]:
    fields: dict[str, Any] = json.loads(row.serialized)
    key = fields.pop("id")
    # In the log foreign keys go by the name of the field
    fields = {name.removesuffix("_id") if name in _FOREIGN_KEYS else name: v for name, v in fields.items()}
    number = int(row.source_id.rpartition("-")[2])
    yield _line("SAVE", row.model_name, key, fields)
    if row.model_name in ("attempt", "feedback") and number % 6 == 0:
        yield _line("SAVE", row.model_name, key, {**fields, _TEXTS[row.model_name]: "changed"})
    if row.model_name == "feedback" and number % 2 == 0:
        yield _line("DELETE", row.model_name, key, fields)


_FOREIGN_KEYS = {"parent_id", "unit_id", "learner_id", "lesson_id", "attempt_id"}
_TEXTS = {"attempt": "answer", "feedback": "text"}


def _line(operation: str, model_name: str, key: str, fields: dict[str, Any]) -> str:
    fields = {**fields, "_morango_dirty_bit": False}
    return f"1763684628.0 {operation} " + json.dumps(
        [{"model": f"school.{model_name}", "pk": key, "fields": fields}]
    )


if __name__ == "__main__":
    django.setup()
    with open(sys.argv[1], "w") as file:
        file.writelines(f"{line}\n" for line in lines(int(sys.argv[2])))
