"""Takes the measurements: side by side, by turns, each in a process and on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from bench.databases import HOSTS, BenchError, Databases, Dataset, run
from bench.measurement import Measurement, Order
from bench.profiles import OVER_HTTP
from bench.results import Result, Series, result
from bench.row import Row

WARM_UP_RECORDS = 5_000
QUICK_WARM_UP_RECORDS = 1_000


@dataclass(frozen=True)
class Contender:
    """One side of a comparison, and the dataset that it works on."""

    dataset: Dataset
    side: str
    workers: int = 0
    pinned: bool = False

    @staticmethod
    def ours(row: Row, quick: bool) -> Contender:
        return Contender(row.dataset(quick), row.ours, row.workers)

    @staticmethod
    def baseline(row: Row, quick: bool) -> Contender:
        return Contender(row.baseline_dataset(quick), row.baseline, row.baseline_workers)

    @property
    def has_variants(self) -> bool:
        """Whether it may do better on one core together with its PostgreSQL backend."""
        alone = self.side.startswith("morango") and not self.workers
        return alone and self.dataset.database == "postgresql"

    def __str__(self) -> str:
        parts = [self.side.replace("morango", "Morango").replace("-", " ")]
        if self.workers:
            who = "processes" if self.side.startswith("morango") else "workers"
            parts.append(f"{self.workers} {who}")
        if self.pinned:
            parts.append("pinned")
        return ", ".join(parts)


@dataclass
class Rounds:
    """Measures rows on databases that it makes, and removes when no row needs them any more."""

    databases: Databases
    machine: str
    """What it is, for the results."""
    quick: bool
    tell: Callable[[str], None]
    repetitions: int | None = None
    """Instead of the rows' own."""
    _rates: dict[Contender, dict[str, float]] = field(default_factory=dict)
    """What the variants of Morango that were tried came to, in records per second."""

    def results(self, rows: Sequence[Row]) -> Iterator[Result]:
        """The rows' results, one dataset's rows after another's."""
        groups: dict[Dataset, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.dataset(self.quick), []).append(row)
        for group in groups.values():
            yield from self._compare(group)

    def _compare(self, rows: Sequence[Row]) -> Iterator[Result]:
        ours = list(dict.fromkeys(Contender.ours(row, self.quick) for row in rows))
        baselines = [Contender.baseline(row, self.quick) for row in rows]
        turn = list(dict.fromkeys([*ours, *baselines]))
        best = {contender: self._warm_up(contender) for contender in turn}
        measured: dict[Contender, list[Measurement]] = {contender: [] for contender in turn}
        usual = 1 if self.quick else max(row.repetitions for row in rows)
        for _ in range(self.repetitions or usual):
            for contender in turn:
                measured[contender].append(self._measure(best[contender]))
        if not self.quick:
            for contender in ours:  # so that each baseline has a neighbour on both sides
                measured[contender].append(self._measure(best[contender]))
        for contender in turn:
            self.databases.forget(contender.dataset)
        for row, baseline in zip(rows, baselines, strict=True):
            found = result(
                row,
                Series(str(Contender.ours(row, self.quick)), measured[Contender.ours(row, self.quick)]),
                Series(str(best[baseline]), measured[baseline], self._rates.get(baseline, {})),
                self.machine,
            )
            if row.baseline.startswith("morango") and found.left_dirty > found.baseline_left_dirty:
                raise BenchError(
                    f"{row.name}: ours left {found.left_dirty} records undone, Morango "
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
            if dataset.models == "school" and contender.side in ("morango", "morango-stage"):
                school = replace(dataset, case="school", records=QUICK_WARM_UP_RECORDS)
                small = replace(contender, dataset=school, side="morango")
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
            contender.side,
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
