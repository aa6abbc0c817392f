"""Takes the measurements: side by side, by turns, each in a process and on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from bench.databases import HOSTS, BenchError, Databases, Dataset, run
from bench.measurement import Measurement, Order
from bench.results import Result, Series, result
from bench.rows import Row

WARM_UP_RECORDS = 5_000


@dataclass(frozen=True)
class Contender:
    """One side of a comparison, and the dataset that it works on."""

    dataset: Dataset
    side: str
    workers: int = 0
    pinned: bool = False

    def __str__(self) -> str:
        who = {"morango": "Morango", "ours": "ours"}.get(self.side, self.side)
        how = f", {self.workers} workers" if self.workers else ", pinned to one core" if self.pinned else ""
        return f"{who}{how}"


Tell = Callable[[str], None]


@dataclass
class Rounds:
    """Measures rows on databases that it makes, and forgets each when no row needs it any more."""

    databases: Databases
    quick: bool
    tell: Tell
    repetitions: int | None = None
    """Instead of the rows' own."""

    def results(self, rows: Sequence[Row]) -> Iterator[Result]:
        """The rows' results. Rows on the same dataset share the measurements of what they have in common."""

        groups: dict[Dataset, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.dataset(self.quick), []).append(row)
        for group in groups.values():
            yield from self._compare(group)

    def _compare(self, rows: Sequence[Row]) -> Iterator[Result]:
        dataset = rows[0].dataset(self.quick)
        challengers = list(dict.fromkeys(self._ours(row) for row in rows))
        baselines = list(dict.fromkeys(self._baseline(row) for row in rows))
        best, series = {}, {}
        for contender in dict.fromkeys([*challengers, *baselines]):
            best[contender], series[contender] = self._warm_up(contender)
        measured: dict[Contender, list[Measurement]] = {contender: [] for contender in series}
        repetitions = self.repetitions or max(row.repetitions for row in rows)
        for _ in range(repetitions):
            for contender in dict.fromkeys([*challengers, *baselines]):
                measured[contender].append(self._measure(best[contender]))
        for contender in challengers:  # so that each baseline has a neighbour on both sides
            measured[contender].append(self._measure(best[contender]))
        for contender in measured:
            self.databases.forget(contender.dataset)
        for row in rows:
            ours, baseline = (
                replace(series[contender], measured=measured[contender])
                for contender in (self._ours(row), self._baseline(row))
            )
            found = result(row, dataset.records, ours, baseline)
            if row.baseline == "morango" and found.left_dirty > found.baseline_left_dirty:
                raise BenchError(
                    f"{row.name}: ours left {found.left_dirty} records, Morango {found.baseline_left_dirty}; "
                    "they did not do the same work."
                )
            yield found

    def _ours(self, row: Row) -> Contender:
        return Contender(row.dataset(self.quick), row.ours, row.workers)

    def _baseline(self, row: Row) -> Contender:
        return Contender(row.dataset(self.quick), row.baseline)

    def _warm_up(self, contender: Contender) -> tuple[Contender, Series]:
        """Measure once on little data; choose the settings that suit Morango best, and count statements.

        :returns: with those settings; and what else was found out
        """
        dataset = contender.dataset
        if dataset.case != "schools":
            dataset = replace(dataset, records=min(dataset.records, WARM_UP_RECORDS))
        variants = [contender]
        if contender.side == "morango" and dataset.database == "postgresql":
            variants.append(replace(contender, pinned=True))
        tried = {
            variant: self._measure(replace(variant, dataset=dataset), count_statements=True)
            for variant in variants
        }
        if dataset != contender.dataset:
            self.databases.forget(dataset)
        best = max(tried, key=lambda variant: tried[variant].records_per_second)
        one = tried[best]
        statements = one.statements and round(one.statements / (one.batches or one.records), 2)
        rates = {
            "pinned" if variant.pinned else "free": round(found.records_per_second, 1)
            for variant, found in tried.items()
        }
        return best, Series(str(best), [], statements, rates)

    def _measure(self, contender: Contender, *, count_statements: bool = False) -> Measurement:
        dataset = contender.dataset
        order = Order(
            contender.side,
            dataset.models,
            dataset.case,
            dataset.records,
            contender.workers,
            contender.pinned,
            count_statements,
        )
        arguments = ("bench.measure", json.dumps(asdict(order)))
        with self.databases.copy(dataset) as environ:
            output = run(HOSTS[dataset.models].python, arguments, environ)
        found = Measurement(**json.loads(output.splitlines()[-1]))
        purpose = "warm-up" if count_statements else "measured"
        self.tell(
            f"{dataset.database} {dataset.case} {dataset.records:,} {contender} ({purpose}): "
            f"{found.records_per_second:,.0f}/s, {found.peak_rss_mb:.0f} MB"
        )
        return found
