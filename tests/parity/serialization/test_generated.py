"""Whole databases drawn at random: always Morango's result, in every column."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.parity.forests import EXAMPLES, SEED
from tests.parity.serialization.databases import databases
from tests.parity.serialization.harness import assert_same


@pytest.mark.timeout(0)
@pytest.mark.parametrize("profile", ["school", "model_zoo"])
@settings(
    deadline=None,
    derandomize=not SEED,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},  # takes longer than all others, and says little about a database
)
@seed(SEED)
@given(data=st.data())
def test_result_is_morangos(profile: str, data: st.DataObject) -> None:
    case = data.draw(databases(profile))
    assert_same(case.app, case.stored, case.others, profile=profile, filter=case.filter, times=case.times)
