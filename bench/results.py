"""Figures of a scenario, calculated from its measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from bench.measurement import Measurement
from bench.scenario import Quantity, Scenario, Threshold


@dataclass(frozen=True)
class Series:
    """The measurements of one implementation, in the order in which they were taken."""

    description: str
    """The implementation's name for the reader."""
    measured: Sequence[Measurement]
    rates_of_variants: Mapping[str, float] = field(default_factory=dict)
    """Records per second, from the warm-up, of the settings among which the best was chosen."""

    @property
    def records_per_second(self) -> float:
        return median(measurement.records_per_second for measurement in self.measured)

    @property
    def seconds(self) -> float:
        return median(measurement.seconds for measurement in self.measured)

    @property
    def median_share(self) -> float:
        return median(measurement.median_share for measurement in self.measured)

    @property
    def peak_rss_mb(self) -> float:
        return max(measurement.peak_rss_mb for measurement in self.measured)


@dataclass(frozen=True)
class Verdict:
    """A scenario's value for one of its thresholds."""

    threshold: Threshold
    value: float
    is_met: bool


@dataclass(frozen=True)
class Result:
    """One object of ``results.json``: its attributes are the keys."""

    name: str
    database: str
    models: str
    records: int
    workers: int
    ours_records_per_second: float
    baseline_records_per_second: float
    ratio: float
    """The median of the ratios of neighbouring measurements."""
    peak_rss_mb: float
    baseline_peak_rss_mb: float
    repetitions: int
    """Number of the baseline's measurements, after warming up."""
    ratio_lowest: float
    ratio_highest: float
    ours_milliseconds: float
    baseline_milliseconds: float
    baseline: str
    """The implementation that ours is compared with."""
    baseline_variants: Mapping[str, float]
    statements_per_batch: float | None
    """All statements of a run in process, divided by the number of its batches."""
    baseline_statements_per_record: float
    statements: float
    """Statements of one sync, in the process that is measured; so are commits."""
    baseline_statements: float
    commits: float
    baseline_commits: float
    median_share: float
    """Syncs asked for at once: the time until half were completed, as a share of the time until all were."""
    baseline_median_share: float
    left_dirty: int
    baseline_left_dirty: int
    case: str
    machine: str
    thresholds: Sequence[Verdict]

    @property
    def meets_its_thresholds(self) -> bool:
        return all(verdict.is_met for verdict in self.thresholds)


def result(scenario: Scenario, ours: Series, baseline: Series, machine: str) -> Result:
    last = baseline.measured[-1]
    ratios = list(_ratios(ours.measured, baseline.measured))
    quantities: dict[Quantity, float] = {
        "ratio": median(ratios),
        "records_per_second": ours.records_per_second,
        "peak_rss_mb": ours.peak_rss_mb,
        "extra_peak_rss_mb": ours.peak_rss_mb - baseline.peak_rss_mb,
        "extra_ms": 1000 * (ours.seconds - baseline.seconds),
        "message_bytes": ours.measured[-1].message_bytes,
        "redis_ratio": last.redis_mb / (ours.measured[-1].redis_mb or 1),
        "times": median(_times(ours.measured, baseline.measured)),
        "median_share": ours.median_share,
        "statements": ours.measured[-1].statements,
        "commits": ours.measured[-1].commits,
        "ids_per_record": max(measurement.ids_per_record for measurement in ours.measured),
    }
    return Result(
        name=scenario.name,
        database=scenario.database,
        models=scenario.models,
        records=ours.measured[-1].records,
        workers=scenario.workers,
        ours_records_per_second=round(ours.records_per_second, 1),
        baseline_records_per_second=round(baseline.records_per_second, 1),
        ratio=round(median(ratios), 3),
        peak_rss_mb=round(ours.peak_rss_mb, 1),
        baseline_peak_rss_mb=round(baseline.peak_rss_mb, 1),
        repetitions=len(baseline.measured),
        ratio_lowest=round(min(ratios), 3),
        ratio_highest=round(max(ratios), 3),
        ours_milliseconds=round(1000 * ours.seconds, 2),
        baseline_milliseconds=round(1000 * baseline.seconds, 2),
        baseline=baseline.description,
        baseline_variants=baseline.rates_of_variants,
        statements_per_batch=_statements_per_batch(scenario, ours.measured[-1]),
        baseline_statements_per_record=round(last.statements / last.records, 2),
        statements=ours.measured[-1].statements,
        baseline_statements=last.statements,
        commits=ours.measured[-1].commits,
        baseline_commits=last.commits,
        median_share=round(ours.median_share, 3),
        baseline_median_share=round(baseline.median_share, 3),
        left_dirty=ours.measured[-1].left_dirty,
        baseline_left_dirty=baseline.measured[-1].left_dirty,
        case=scenario.case,
        machine=machine,
        thresholds=[
            Verdict(
                threshold,
                round(quantities[threshold.quantity], 3),
                threshold.is_met(quantities[threshold.quantity]),
            )
            for threshold in scenario.thresholds
        ],
    )


def _statements_per_batch(scenario: Scenario, found: Measurement) -> float | None:
    if scenario.workers or not found.batches:
        return None
    return round(found.statements / found.batches, 1)


def _ratios(ours: Sequence[Measurement], baseline: Sequence[Measurement]) -> Iterator[float]:
    """Yield our rate divided by the baseline's: for each of its measurements, with the ones right before
    and after it."""
    for theirs, neighbour in _neighbours(ours, baseline):
        yield neighbour.records_per_second / theirs.records_per_second


def _times(ours: Sequence[Measurement], baseline: Sequence[Measurement]) -> Iterator[float]:
    """Yield how many times as long as the baseline ours took; likewise."""
    for theirs, neighbour in _neighbours(ours, baseline):
        yield neighbour.seconds / theirs.seconds


def _neighbours(
    ours: Sequence[Measurement], baseline: Sequence[Measurement]
) -> Iterator[tuple[Measurement, Measurement]]:
    for number, theirs in enumerate(baseline):
        for neighbour in ours[number : number + 2]:
            yield theirs, neighbour


def write(results: Sequence[Result], path: Path) -> None:
    text = json.dumps([asdict(result) for result in results], indent=2)
    path.write_text(text + "\n", encoding="utf-8")
