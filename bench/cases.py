"""Names of the cases of many small syncs, which say how many records a sync has. No Django in here.

All syncs of a case together have as many records as a scenario says. Those that warm up processes come on
top.
"""

from __future__ import annotations

WARM_UP_SYNCS = 4
"""The first syncs aren't counted: who serves them was just started."""

TWO_PREFIXES = "two_prefixes"
DELETIONS = "deletions"
ONE_FACILITY = "one_facility"
"""All syncs are of one facility's devices, under one filter."""
ON_A_SERVER = "on_a_server"
"""A scenario says instead how many app rows the server has."""
SYNCS_ON_A_SERVER = 40


def syncs_of(records: int, kind: str = "") -> str:
    """Return the name of a case.

    :param kind: more about its syncs: one of the above
    """
    return "_".join(("syncs_of", str(records), *([kind] if kind else [])))


def is_of_syncs(case: str) -> bool:
    return case.startswith("syncs_of_")


def size_of(case: str) -> int:
    """Return how many records each sync of a case has."""
    return int(case.removeprefix("syncs_of_").partition("_")[0])


def number_of_syncs(case: str, records: int) -> int:
    """Return how many syncs of a case have so many records, those for warming up included."""
    if case.endswith(ON_A_SERVER):
        return WARM_UP_SYNCS + SYNCS_ON_A_SERVER
    return WARM_UP_SYNCS + max(1, records // size_of(case))
