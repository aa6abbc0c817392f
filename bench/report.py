"""The results as a table."""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import Result

HEADINGS = (
    "scenario",
    "records",
    "ours/s",
    "baseline/s",
    "ratio (spread)",
    "MB",
    "statements",
    "baseline",
    "thresholds",
)
LEFT = (0, 7, 8)
"""The columns of text."""


def table(results: Sequence[Result]) -> str:
    """One line a result; a threshold that isn't met is marked."""
    lines = [HEADINGS, *(_cells(result) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _statements(result: Result) -> str:
    """Return ours a batch and the baseline's a record, where this process sends them."""
    ours = "-" if result.statements_per_batch is None else f"{result.statements_per_batch:g} a batch"
    baseline = result.baseline_statements_per_record
    return f"{ours} / {f'{baseline:g} a record' if baseline else '-'}"


def _cells(result: Result) -> tuple[str, ...]:
    where = f"{result.database}, {result.models}" if result.models != "school" else result.database
    workers = f", {result.workers} workers" if result.workers else ""
    return (
        f"{result.name}, {where}{workers}",
        f"{result.records:,}",
        f"{result.ours_records_per_second:,.0f}",
        f"{result.baseline_records_per_second:,.0f}",
        f"{result.ratio:.2f} ({result.ratio_lowest:.2f}-{result.ratio_highest:.2f})",
        f"{result.peak_rss_mb:.0f} / {result.baseline_peak_rss_mb:.0f}",
        _statements(result),
        result.baseline,
        "; ".join(
            f"{verdict.threshold.quantity} {verdict.value:,.4g} {verdict.threshold}: "
            f"{'met' if verdict.is_met else 'NOT MET'}"
            for verdict in result.thresholds
        ),
    )
