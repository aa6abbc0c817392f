"""References and their JSON."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morango_celery.errors import InvalidMessageError
from morango_celery.payloads import Reference
from tests.payloads.values import JSON

HASH = "0f" * 32
SHORT = base64.urlsafe_b64encode(bytes.fromhex(HASH)).decode()[:43]

references = st.builds(
    Reference, st.binary(min_size=32, max_size=32).map(bytes.hex), st.none() | st.integers(0, 2**60)
) | st.builds(
    lambda chunk, more: Reference(HASH, chunk + more, chunk), st.integers(1, 2**20), st.integers(0, 999)
)


@given(reference=references)
def test_reference_comes_back_from_json(reference: Reference) -> None:
    assert Reference.from_json(reference.as_json()) == reference


@given(value=JSON)
def test_malformed_reference_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessageError, match="no reference"):
        Reference.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": HASH},
        {"payload": SHORT[:-1]},
        {"payload": SHORT + "="},
        {"payload": SHORT[:-1] + "9"},  # has bits to spare
        {"payload": SHORT[:-1] + "\n"},
        {"payload": "/" + SHORT[1:]},
        {"payload": "é" + SHORT[1:]},
        {"payload": 7},
        {"bytes": -1},
        {"bytes": True},
        {"bytes": 1.5},
        {"bytes": "10"},
        {"bytes": 2**63},
        {"chunk": 0},
        {"chunk": -1},
        {"chunk": 1},  # a million parts
        {"chunk": 2**21},  # larger than the whole
        {"chunk": 2**10, "bytes": None},
        {"more": 1},
    ],
)
def test_value_that_only_resembles_a_reference_is_refused(change: dict[str, Any]) -> None:
    sound = {"payload": SHORT, "bytes": 2**20, "chunk": 2**10}
    assert Reference.from_json(sound) == Reference(HASH, 2**20, 2**10)

    with pytest.raises(InvalidMessageError, match="no reference"):
        Reference.from_json({**sound, **change})
