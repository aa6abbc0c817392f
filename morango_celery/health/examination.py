"""Examination for monitors: each check has one word, and no data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from morango_celery.api import runs_in_process
from morango_celery.health.looks import SharedLook
from morango_celery.messaging.broker import reach_broker
from morango_celery.runs.status import stalled
from morango_celery.runs.workers import signs_of_workers

PATIENCE_SECONDS = 2.0
"""Longest time that an examination takes."""


class State(enum.Enum):
    """Result of a check."""

    OK = "ok"
    FAILING = "failing"
    UNKNOWN = "unknown"
    """It could not be looked at, for another check fails."""
    UNUSED = "unused"
    """Runs are carried out where syncs arrive, and need neither broker nor workers."""


class LedgerSigns(NamedTuple):
    """Signs of life that the ledger has."""

    has_worker: bool
    is_moving: bool
    """True if no run is stalled."""


def _read_ledger() -> LedgerSigns:
    return LedgerSigns(not signs_of_workers().are_lost(), not stalled().exists())


ledger = SharedLook(_read_ledger, PATIENCE_SECONDS)
broker = SharedLook(lambda: reach_broker(PATIENCE_SECONDS), PATIENCE_SECONDS)


def examine() -> Mapping[str, State]:
    """Return the states of the checks ``ledger``, ``broker``, ``worker`` and ``stalled``.

    Cost: three queries and two connections, once in two seconds, however often it is called.
    """
    uses_workers = not runs_in_process()
    ledger.begin()
    if uses_workers:
        broker.begin()
    found = {"ledger": State.OK, "broker": State.UNUSED, "worker": State.UNUSED, "stalled": State.OK}
    try:
        signs = ledger.answer()
    except Exception:  # of any kind: the page says that it fails, and `doctor` says why
        found.update(ledger=State.FAILING, stalled=State.UNKNOWN)
        worker = State.UNKNOWN
    else:
        found["stalled"] = _state(signs.is_moving)
        worker = _state(signs.has_worker)
    if uses_workers:
        found["worker"] = worker
        try:
            broker.answer()
        except Exception:  # as above
            found["broker"] = State.FAILING
        else:
            found["broker"] = State.OK
    return found


def is_healthy(found: Mapping[str, State]) -> bool:
    return set(found.values()) <= {State.OK, State.UNUSED}


def _state(is_ok: bool) -> State:
    return State.OK if is_ok else State.FAILING
