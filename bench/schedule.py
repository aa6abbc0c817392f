"""The measurements: side by side, by turns, each in a process and on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from typing_extensions import override

from bench.databases import HOSTS, BenchError, Databases, Dataset, run
from bench.measurement import Measurement, Order
from bench.profiles import OVER_HTTP
from bench.results import Result, Series, result
from bench.scenario import Scenario

WARM_UP_RECORDS = 5_000
QUICK_WARM_UP_RECORDS = 1_000


@dataclass(frozen=True)
class Contender:
    """One implementation of a comparison, and the dataset that it works on."""

    dataset: Dataset
    implementation: str
    workers: int = 0
    pinned: bool = False

    @staticmethod
    def ours(scenario: Scenario, quick: bool) -> Contender:
        return Contender(scenario.dataset(quick), scenario.ours, scenario.workers)

    @staticmethod
    def baseline(scenario: Scenario, quick: bool) -> Contender:
        return Contender(scenario.baseline_dataset(quick), scenario.baseline, scenario.baseline_workers)

    @property
    def has_variants(self) -> bool:
        """True if it may do better on one core together with its PostgreSQL backend."""
        alone = self.implementation.startswith("morango") and not self.workers
        return alone and self.dataset.database == "postgresql"

    @override
    def __str__(self) -> str:
        parts = [self.implementation.replace("morango", "Morango").replace("-", " ")]
        if self.workers:
            who = "processes" if self.implementation.startswith("morango") else "workers"
            parts.append(f"{self.workers} {who}")
        if self.pinned:
            parts.append("pinned")
        return ", ".join(parts)


@dataclass
class Schedule:
    """Measures scenarios on databases that it makes, and removes when no scenario needs them any more."""

    databases: Databases
    machine: str
    """Description of the machine, for the results."""
    quick: bool
    tell: Callable[[str], None]
    repetitions: int | None = None
    """Instead of the scenarios' own."""
    _rates: dict[Contender, dict[str, float]] = field(default_factory=dict)
    """Records per second of each variant of Morango that was tried."""

    def results(self, scenarios: Sequence[Scenario]) -> Iterator[Result]:
        """Yield the scenarios' results, one dataset's scenarios after another's."""
        groups: dict[Dataset, list[Scenario]] = {}
        for scenario in scenarios:
            groups.setdefault(scenario.dataset(self.quick), []).append(scenario)
        for group in groups.values():
            yield from self._compare(group)

    def _compare(self, scenarios: Sequence[Scenario]) -> Iterator[Result]:
        ours = list(dict.fromkeys(Contender.ours(scenario, self.quick) for scenario in scenarios))
        baselines = [Contender.baseline(scenario, self.quick) for scenario in scenarios]
        turn = list(dict.fromkeys([*ours, *baselines]))
        best = {contender: self._warm_up(contender) for contender in turn}
        measured: dict[Contender, list[Measurement]] = {contender: [] for contender in turn}
        usual = 1 if self.quick else max(scenario.repetitions for scenario in scenarios)
        for _ in range(self.repetitions or usual):
            for contender in turn:
                measured[contender].append(self._measure(best[contender]))
        if not self.quick:
            for contender in ours:  # so that each baseline has a neighbour on both sides
                measured[contender].append(self._measure(best[contender]))
        for contender in turn:
            self.databases.forget(contender.dataset)
        for scenario, baseline in zip(scenarios, baselines, strict=True):
            found = result(
                scenario,
                Series(
                    str(Contender.ours(scenario, self.quick)), measured[Contender.ours(scenario, self.quick)]
                ),
                Series(str(best[baseline]), measured[baseline], self._rates.get(baseline, {})),
                self.machine,
            )
            if scenario.baseline.startswith("morango") and found.left_dirty > found.baseline_left_dirty:
                raise BenchError(
                    f"{scenario.name}: ours left {found.left_dirty} records undone, Morango "
                    f"{found.baseline_left_dirty}. They did not do the same work."
                )
            yield found

    def _warm_up(self, contender: Contender) -> Contender:
        """Measure once on few records, and choose the variant that is fastest.

        In a hurry, only where there is a choice, and once for all kinds of records of a host.
        """
        dataset = contender.dataset
        small = contender
        if dataset.models == OVER_HTTP:
            return contender
        if self.quick:
            if not contender.has_variants:
                return contender
            if dataset.models == "school" and contender.implementation in ("morango", "morango-stage"):
                school = replace(dataset, case="school", records=QUICK_WARM_UP_RECORDS)
                small = replace(contender, dataset=school, implementation="morango")
        elif dataset.case != "schools":
            small = replace(
                contender, dataset=replace(dataset, records=min(dataset.records, WARM_UP_RECORDS))
            )
        if small not in self._rates:
            variants = [small, replace(small, pinned=True)] if contender.has_variants else [small]
            self._rates[small] = dict(self._try(variants))
            if small.dataset != dataset:
                self.databases.forget(small.dataset)
        rates = self._rates[contender] = self._rates[small]
        return replace(contender, pinned=rates.get("pinned", 0) > rates["free"])

    def _try(self, variants: Sequence[Contender]) -> Iterator[tuple[str, float]]:
        for variant in variants:
            try:
                rate = self._measure(variant, "warm-up").records_per_second
            except BenchError as error:
                if not variant.pinned:
                    raise
                self.tell(f"{variant}: can't be measured here. {str(error).splitlines()[-1]}")
            else:
                yield "pinned" if variant.pinned else "free", round(rate, 1)

    def _measure(self, contender: Contender, purpose: str = "measured") -> Measurement:
        dataset = contender.dataset
        order = Order(
            contender.implementation,
            dataset.models,
            dataset.case,
            dataset.records,
            contender.workers,
            contender.pinned,
        )
        arguments = ("bench.measure", json.dumps(asdict(order)))
        with self.databases.copy(dataset) as environ:
            output = run(HOSTS[dataset.models].python, arguments, environ)
        found = Measurement(**json.loads(output.splitlines()[-1]))
        self.tell(
            f"{dataset.database} {dataset.case} {found.records:,}, {contender} ({purpose}): "
            f"{found.records_per_second:,.0f}/s, {found.peak_rss_mb:.0f} MB"
        )
        return found
