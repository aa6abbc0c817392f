"""Check that an error text names the fault: by name, by value, or in words that need neither."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from morango.models import Store
from morango.registry import syncable_models

_JSON_PROBLEM = "|".join(
    (
        "Expecting value",
        "Expecting ',' delimiter",
        "Expecting ':' delimiter",
        "Expecting property name enclosed in double quotes",
        "Extra data",
        r"Invalid \\escape",
        r"Invalid \\uXXXX escape",
        "Invalid control character at",
        "Unterminated string starting at",
        r"Unexpected UTF-8 BOM \(decode using utf-8-sig\)",
    )
)
STAND_ALONE = (
    # Python's words, which Morango writes to the Store unchanged
    rf"({_JSON_PROBLEM}): line \d+ column \d+ \(char \d+\)",
    "badly formed hexadecimal UUID string",
    r"Exceeds the limit \(\d+ digits\) for integer string conversion.*",
    r"'utf-8' codec can't encode characters? in position [\d-]+: surrogates not allowed",
    r"A string literal cannot contain NUL \(0x00\) characters\.",
    r"[A-Z]\w+ matching query does not exist\.",  # Django's, when a model's code looks for another row
    # Morango's own
    r"Parent is dirty; could not deserialize\.",
    r"Parent does not exist in Store; could not deserialize\.",
    # Python's words for errors that end Morango's run
    "maximum recursion depth exceeded.*",
    "Python int too large to convert to SQLite INTEGER",
)
"""Texts that name a record's fault, though not its place."""

FEWEST_WORDS = 3
SHORTEST_VALUE = 3


def says_why(text: str, row: Store) -> bool:
    """Return True if a text names a field, a value or an id of the record, its model, or a known cause."""
    if any(re.fullmatch(cause, text, re.DOTALL) for cause in STAND_ALONE):
        return True
    if len(text.split()) < FEWEST_WORDS:
        return False
    if text.startswith("The record's JSON is no object, but "):
        return True
    if f"syncable model {row.model_name!r} in profile {row.profile!r}" in text:
        return True  # no app has it
    return any(_names(text, field) for field in _fields(row)) or any(
        _quotes(text, value) for value in _values(row)
    )


def _names(text: str, field: str) -> bool:
    """Return a name's forms in an error: quoted, behind its table's, in brackets, or before its value."""
    return re.search(rf"""['".(]{field}['"):]|[ .]{field}( =|$| references)""", text) is not None


def _quotes(text: str, value: str) -> bool:
    if len(value) < SHORTEST_VALUE:  # else it would be found in anything
        return f"['{value} is " in text or f"“{value}” value" in text
    return value in text


def _fields(row: Store) -> Iterator[str]:
    try:
        model = syncable_models.get_model(row.profile, row.model_name)
    except KeyError:
        return
    for field in model._meta.concrete_fields:
        yield from {field.name, field.attname}


def _values(row: Store) -> Iterator[str]:
    """Ids that the record has or refers to, and its values as an error may quote them."""
    yield from re.findall(r"[0-9a-f]{32}", f"{row.id} {row._self_ref_fk} {row.serialized}")
    try:
        data = json.loads(row.serialized)
    except (ValueError, RecursionError):
        return
    for value in data.values() if isinstance(data, dict) else ():
        if value is not None and not isinstance(value, bool):
            for quoted in {str(value), repr(value)}:
                yield quoted.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
