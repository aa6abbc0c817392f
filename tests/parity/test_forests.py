"""Whole databases drawn at random, delivered in every way: always Morango's result, or a listed deviation."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.parity.case import Case
from tests.parity.deliveries import Delivery
from tests.parity.filing import FILING
from tests.parity.forests import EXAMPLES, SEED, cases
from tests.parity.oracle import expected, in_our_words
from tests.parity.worlds import MODEL_ZOO, SCHOOL, World
from tests.support.comparison import Database, difference, read, rolled_back

deliveries = st.builds(
    Delivery,
    batch_size=st.sampled_from([1, 2, 3, 5, 1000]),
    seed=st.integers(0, 99),
    repeated=st.booleans(),
)


def outcome(case: Case, delivery: Delivery) -> Database:
    from django.db import connection

    result = Database()
    with rolled_back():
        case.set_up(case.rows)
        delivery(case.profile, skip_erroring=case.skip_erroring, filter=case.filter)
        connection.check_constraints()
        read(result, case.profile)
    return result


@pytest.mark.usefixtures("trees_alone")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", [SCHOOL, MODEL_ZOO, FILING], ids=["school", "model_zoo", "filing"])
@settings(
    deadline=None,
    derandomize=not SEED,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},  # takes longer than all others, and says little about a database
)
@seed(SEED)
@given(data=st.data())
def test_result_is_morangos_whatever_the_delivery(world: World, data: st.DataObject) -> None:
    case = data.draw(cases(world))
    delivery = data.draw(deliveries)
    ours = outcome(case, delivery)
    assert not difference(in_our_words(expected(case, ours), ours, case), ours)
