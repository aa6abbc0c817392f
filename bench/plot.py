"""Throughput and peak memory over the number of records, both databases, as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.results import Result

CURVES = ("deserialize", "curve", "memory-of-worker")
"""Scenarios whose points are drawn; all have the same kind of records."""

Point = tuple[int, float, float]
"""Records, records per second, peak in MB."""


def draw(results: Sequence[Result], path: Path) -> None:
    """Write a PNG with a line for each implementation that was measured at several sizes."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for column, database in enumerate(("postgresql", "sqlite")):
        speed, memory = axes[0][column], axes[1][column]
        for name, points in sorted(curves(results, database).items()):
            records, rates, peaks = zip(*sorted(points), strict=True)
            speed.plot(records, rates, marker="o", label=name)
            memory.plot(records, peaks, marker="o", label=name)
        speed.set_title({"postgresql": "PostgreSQL", "sqlite": "SQLite"}[database])
        speed.set_ylabel("records per second")
        memory.set_ylabel("peak RSS of a process, MB")
        memory.set_xlabel("records")
        for panel in (speed, memory):
            panel.set_xscale("log")
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
            if panel.lines:
                panel.legend()
    figure.savefig(path, dpi=110)


def curves(results: Sequence[Result], database: str) -> dict[str, set[Point]]:
    """Return the points of each line, by its name."""
    found: dict[str, set[Point]] = defaultdict(set)
    for result in results:
        if result.name in CURVES and result.database == database and result.models == "school":
            for name, point in _points(result):
                found[name].add(point)
    return dict(found)


def _points(result: Result) -> Iterator[tuple[str, Point]]:
    ours = f"ours, {result.workers} workers" if result.workers else "ours, in process"
    yield ours, (result.records, result.ours_records_per_second, result.peak_rss_mb)
    if result.baseline.startswith("Morango"):
        point = (result.records, result.baseline_records_per_second, result.baseline_peak_rss_mb)
        yield "Morango", point
