"""The comparisons to make, and the processes that produce their two made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from tests.kolibri.compare import Outcome
from tests.kolibri.databases import Databases, run_module
from tests.kolibri.scenarios import Scenario


@dataclass(frozen=True)
class Case:
    """One comparison: a scenario in one row order on one kind of database."""

    databases: Databases
    scenario: Scenario
    seed: int

    @override
    def __str__(self) -> str:
        order = f"order {self.seed}" if self.seed else "recorded order"
        return f"{self.databases.name} {self.scenario.name}, {order}"


@dataclass(frozen=True)
class Outcomes:
    """The two outcomes of a case; each is a future until its process has ended."""

    case: Case
    morango: Future[Outcome]
    ours: Future[Outcome]


def every_case(kinds: Sequence[Databases], scenarios: Sequence[Scenario]) -> Iterator[Case]:
    """Yield all orders of all scenarios on all kinds of database."""
    for databases in kinds:
        for scenario in scenarios:
            for seed in scenario.orders:
                yield Case(databases, scenario, seed)


def start(case: Case, pool: Executor, folder: Path, *, ours: str) -> Outcomes:
    """Have both outcomes of a case made in `pool`, by way of files in `folder`."""
    return Outcomes(
        case,
        pool.submit(_outcome, case, "morango", folder / f"{case}, Morango.json"),
        pool.submit(_outcome, case, ours, folder / f"{case}, ours.json"),
    )


def _outcome(case: Case, implementation: str, target: Path) -> Outcome:
    arguments = (implementation, case.scenario.name, str(case.seed), str(target))
    with case.databases.copy() as environ:
        run_module("tests.kolibri.implementation", *arguments, environ=environ)
    outcome = Outcome.read(target)
    target.unlink()
    return outcome
