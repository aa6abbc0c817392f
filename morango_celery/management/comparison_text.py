"""A comparison's report in words."""

from __future__ import annotations

from collections.abc import Iterator

from morango_celery.comparison import Difference, Report
from morango_celery.management.formatting import duration
from morango_celery.printable import printable

_COUNTS = ("saved", "deleted", "failed", "left")


def as_text(report: Report) -> Iterator[str]:
    """Yield the report's lines: a table of models, the figures of each side, then what differs."""
    yield from _models(report)
    yield ""
    yield f"{'':<22}{'Morango':>14}{'morango_celery':>18}"
    yield (
        f"{'time':<22}{duration(report.morango.seconds):>14}{duration(report.ours.seconds):>18}"
        f"   {report.ratio:.1f} times as fast"
    )
    memory = [_megabytes(side.peak_bytes) for side in (report.morango, report.ours)]
    yield f"{'memory at its highest':<22}{memory[0]:>14}{memory[1]:>18}"
    yield ""
    if report.quarantined:
        yield f"{_records(report.quarantined)} quarantined, and left out."
    if report.set_aside:
        yield (
            f"{_records(len(report.set_aside))} left out, because they abort Morango's function, or "
            "may do so. With morango_celery they are in error:"
        )
        for record, error in list(report.set_aside.items())[:10]:
            yield f"  {record}: {printable(error)}"
    for anchor, count in report.documented.items():
        yield f"{count:,} x as documented in docs/fidelity.md#{anchor}"
    if not report.differences:
        yield "No other differences." if report.documented else "No differences."
        return
    rows = "1 row differs" if report.differences == 1 else f"{report.differences:,} rows differ"
    yield f"{rows}, and no documented deviation says why:"
    shown = [each for each in report.examples if each.documented is None]
    for each in shown:
        yield from _difference(each)
    if report.differences > len(shown):
        yield f"  ... and {report.differences - len(shown):,} more"


def _models(report: Report) -> Iterator[str]:
    width = max((len(each.model) for each in report.models), default=0)
    heading = "".join(f"{name:>9}" for name in _COUNTS)
    yield f"{'':<{width}}  {'':>9}  {'Morango':>36}  {'morango_celery':>36}"
    yield f"{'model':<{width}}  {'records':>9}  {heading}  {heading}"
    for each in report.models:
        sides = (
            "".join(f"{getattr(side, name):>9,}" for name in _COUNTS) for side in (each.morango, each.ours)
        )
        yield f"{printable(each.model):<{width}}  {each.records:>9,}  {'  '.join(sides)}"


def _difference(each: Difference) -> Iterator[str]:
    kinds = {"missing": "missing with us", "additional": "with us alone"}
    yield f"  {each.table} {printable(each.row)}: {kinds.get(each.kind) or ', '.join(each.columns)}"
    for column, (morango, ours) in (each.values or {}).items():
        yield f"    {column}: {printable(repr(morango))} with Morango, {printable(repr(ours))} with us"


def _records(count: int) -> str:
    return "1 record is" if count == 1 else f"{count:,} records are"


def _megabytes(size: int | None) -> str:
    return "not known" if size is None else f"{size / 1024**2:.0f} MiB"
