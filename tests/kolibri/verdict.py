"""Judgement of one of our outcomes against Morango's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.kolibri.compare import Outcome
from tests.kolibri.deviations import explain
from tests.support.differences import Difference, differences

UNEXPLAINED = "unexplained"


@dataclass
class Verdict:
    """The judgement of one comparison: compared values, allowed deviations, and faults."""

    records: Counter[str]
    """Store rows of each model."""
    saved: Counter[str]
    """Those of them that are in the app tables with us."""
    failed: Counter[str]
    """Those of them that are in error with us."""
    deviations: Counter[str] = field(default_factory=Counter)
    per_model: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of differences of each (model name, deviation); UNEXPLAINED if it is none."""
    complaints: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> dict[str, int]:
        """Return the number of differences that each deviation explains."""
        return {name: count for name, count in sorted(self.deviations.items()) if name != UNEXPLAINED}

    @property
    def holds(self) -> bool:
        """Return True if nothing is wrong."""
        return not self.complaints


def judge(morango: Outcome, ours: Outcome) -> Verdict:
    """Compare two outcomes of the same scenario, order and kind of database.

    Where both are Morango's, what ours must do better isn't asked.
    """
    verdict = Verdict(
        records=ours.per_model(ours.store),
        saved=ours.per_model(key for key in ours.store if ours.app_row(key)),
        failed=ours.per_model(ours.in_error),
    )
    complain = verdict.complaints.append
    if morango.aborted and not morango.retried:
        complain(f"Morango aborted, so there is nothing to compare with: {morango.aborted}")
        return verdict
    for about, group in morango.poison.items():
        if not group["aborted"]:
            complain(f"the scenario is wrong: {about} did not abort Morango")
    for difference in differences(morango.tables, ours.tables):
        deviation = explain(difference, morango, ours)
        name = deviation.name if deviation else UNEXPLAINED
        verdict.deviations[name] += 1
        verdict.per_model[_model_of(difference, ours), name] += 1
        if not deviation:
            complain(str(difference))
    if ours.implementation == "morango":
        return verdict
    if ours.aborted:
        complain(f"ours aborted: {ours.aborted}")
    for key in ours.forgotten:
        complain(f"left dirty without an error: {ours.store[key]['model_name']} {key}")
    for about, serialized in ours.serialization.items():
        for found in serialized["differences"]:
            complain(f"serialization of {about} rows: {found}")
        for model in sorted({ours.store[key]["model_name"] for key in ours.store if ours.app_row(key)}):
            if about != "filtered" and not serialized["models"].get(model):
                complain(f"serialization of {about} rows: none of {model}")
    for difference in differences(ours.tables, ours.stable):
        complain(f"ours changed when run again: {difference}")
    return verdict


def judge_order(recorded: Outcome, other: Outcome) -> list[str]:
    """List the differences of our outcome in another row order from the one in the recorded order."""
    found = differences(recorded.tables, other.tables)
    return [f"row order changes ours: {difference}" for difference in found]


def _model_of(difference: Difference, ours: Outcome) -> str:
    record = ours.store.get(difference.key)
    return str(record["model_name"]) if record else difference.table
