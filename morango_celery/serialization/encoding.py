"""App rows as the JSON that Morango writes: the text of ``DjangoJSONEncoder``, to the byte.

Rows are encoded column by column: most columns are of one type, and then a function in C sees to all of
the column's values.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

_encoder = DjangoJSONEncoder()

encode: Callable[[Any], str] = _encoder.encode
"""Encoder of any value to JSON."""


def encode_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return `rows` as JSON objects, with a value for each of the `names`.

    :raises TypeError: a value that JSON has no form of
    """
    if not names:
        return ["{}"] * len(rows)
    keys = (encode(name).replace("%", "%%") for name in names)
    template = "{" + ", ".join(f"{key}: %s" for key in keys) + "}"
    columns = map(_encode_column, zip(*rows, strict=True))
    return [template % row for row in zip(*columns, strict=True)]


def _encode_column(values: Sequence[Any]) -> Sequence[str]:
    types = set(map(type, values))
    if len(types) == 1:
        return list(map(_ENCODERS.get(types.pop(), encode), values))
    return [_ENCODERS.get(type(value), encode)(value) for value in values]


def _encode_float(value: float) -> str:
    text = repr(value)
    return _NOT_FINITE.get(text, text)


def _encode_time(value: datetime.datetime) -> str:
    return f'"{_encoder.default(value)}"'


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_CONSTANTS = {None: "null", True: "true", False: "false"}
_ENCODERS: Mapping[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    int: repr,
    float: _encode_float,
    bool: _CONSTANTS.__getitem__,
    type(None): _CONSTANTS.__getitem__,
    datetime.datetime: _encode_time,
}
"""Encoders by the very type: a type derived from it may encode otherwise."""
