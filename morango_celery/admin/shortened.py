"""The beginnings of texts that may be long: all that a list shows, and reads."""

from __future__ import annotations

from django.db.models.functions import Left

SHOWN_CHARACTERS = 120


def beginning(field: str) -> Left:
    """Return the beginning of a text, as an annotation: the database cuts it."""
    return Left(field, SHOWN_CHARACTERS)


def first_line(begins: str) -> str:
    """Return the first line of an annotation by `beginning`."""
    return begins.partition("\n")[0]
