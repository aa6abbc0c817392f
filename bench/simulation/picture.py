"""A picture of throughput, and of the waiting of small syncs, over the number of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

Line = Sequence[tuple[int, float]]
"""Points of worker processes and values."""


def draw(throughput: Mapping[str, Line], latency: Mapping[str, Line], limit: float, path: Path) -> None:
    """
    :param throughput: records per second
    :param latency: seconds
    :param limit: records per second with all of the database's cores busy
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    speed, waiting = figure.subplots(1, 2)
    for panel, lines, title, unit in (
        (speed, throughput, "Throughput", "records per second"),
        (waiting, latency, "Small syncs at 70 % load, 95th percentile", "seconds until completed"),
    ):
        for name, points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=name)
        panel.set(title=title, xlabel="worker processes", ylabel=unit, xscale="log", yscale="log")
        panel.grid(alpha=0.3)
    speed.axhline(limit, linestyle="--", color="grey", label="the database's cores")
    speed.legend()
    waiting.legend()
    figure.savefig(path, dpi=80)
