"""The outcome of all comparisons, for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.kolibri.cases import Case
from tests.kolibri.compare import Outcome
from tests.kolibri.deviations import DEVIATIONS
from tests.kolibri.verdict import UNEXPLAINED, Verdict

MAX_COMPLAINTS = 20

ID = r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

Row = Sequence[object]


@dataclass(frozen=True)
class Judged:
    """A judged case: its verdict, without the contents of the databases."""

    case: Case
    verdict: Verdict
    models: Sequence[str]
    """Show the compared values of each model, summed over all cases."""
    morango: str
    """The outcome of Morango's function, in a few words."""
    morango_seconds: float
    our_seconds: float

    @classmethod
    def of(cls, case: Case, morango: Outcome, ours: Outcome, verdict: Verdict) -> Judged:
        """Keep the figures for the tables at the end."""
        errors, retried = f"{len(morango.in_error)} errors", ", retried" * morango.retried
        summary = f"aborted{retried}" if morango.aborted else errors
        return cls(case, verdict, list(ours.models), summary, morango.seconds, ours.seconds)


def table(headings: Row, rows: Iterable[Row]) -> str:
    """Lay out text to the left and numbers to the right."""
    cells = [[str(cell) for cell in headings]]
    numbers = [True] * len(headings)
    for row in rows:
        numbers = [old and isinstance(cell, int | float) for old, cell in zip(numbers, row, strict=True)]
        cells.append([f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in cells
    )


def one(case: Case, morango: Outcome, ours: Outcome, verdict: Verdict, shown: set[str]) -> str:
    """Show one case: allowed deviations, the reason of Morango's abort, records in error, and faults.

    :param shown: lists of errors printed before, which aren't repeated; this one's is added
    """
    allowed = ", ".join(f"{count} {name}" for name, count in verdict.allowed.items())
    lines = [f"{case}: {'same' if verdict.holds else 'DIFFERENT'}{f' but for {allowed}' if allowed else ''}"]
    for about, group in morango.poison.items():
        lines.append(f"    {about}: Morango aborted with {_first_line(group['aborted'])}")
    if morango.aborted and not morango.poison:
        lines.append(f"    Morango aborted with {_first_line(morango.aborted)}")
    if ours.serialization:
        counts = (f"{sum(s['models'].values())} {about}" for about, s in ours.serialization.items())
        lines.append(f"    then serialized: {', '.join(counts)}")
    if ours.in_error:
        errors = _errors(ours)
        lines.append(f"    in error:{' the same as above' if errors in shown else errors}")
        shown.add(errors)
    if verdict.complaints:
        lines += ["    wrong:", *(f"      {complaint}" for complaint in verdict.complaints[:MAX_COMPLAINTS])]
    if len(verdict.complaints) > MAX_COMPLAINTS:
        lines.append(f"      ... and {len(verdict.complaints) - MAX_COMPLAINTS} more")
    return "\n".join(lines)


def models(judged: Sequence[Judged]) -> str:
    """Show for each model what was compared, summed over all cases."""
    verdicts = [row.verdict for row in judged]
    records = sum((verdict.records for verdict in verdicts), Counter[str]())
    saved = sum((verdict.saved for verdict in verdicts), Counter[str]())
    failed = sum((verdict.failed for verdict in verdicts), Counter[str]())
    found = sum((verdict.per_model for verdict in verdicts), Counter[tuple[str, str]]())
    registered = judged[0].models if judged else []
    others = sorted(({*records} | {model for model, _ in found}) - {*registered})
    names = [d.name for d in DEVIATIONS if any(name == d.name for _, name in found)] + [UNEXPLAINED]
    return table(
        ["model", "records", "app rows", "in error", *names],
        [
            [model, records[model], saved[model], failed[model], *(found[model, name] for name in names)]
            for model in (*registered, *others)
        ],
    )


def cases(judged: Sequence[Judged]) -> str:
    """Show one line for each case; `s` are seconds in the function."""
    columns = ("database", "scenario", "order", "records", "app rows", "in error", "allowed", "wrong")
    return table([*columns, "Morango", "s", "ours s"], [_case(row) for row in judged])


def _case(judged: Judged) -> Row:
    case, verdict = judged.case, judged.verdict
    return (
        case.databases.name,
        case.scenario.name,
        case.seed,
        verdict.records.total(),
        verdict.saved.total(),
        verdict.failed.total(),
        sum(verdict.allowed.values()),
        len(verdict.complaints),
        judged.morango,
        judged.morango_seconds,
        judged.our_seconds,
    )


def _errors(outcome: Outcome) -> str:
    """List why records are in error, alike ones together."""
    groups: Counter[tuple[str, str, str]] = Counter()
    for row in (outcome.store[key] for key in outcome.in_error):
        text = re.sub(ID, "<id>", " ".join(row["deserialization_error"].split()))
        exception = (row["deserialization_exception"] or "").rpartition(".")[2]
        groups[row["model_name"], exception, text] += 1
    return "".join(
        f"\n      {count:4} {model}: {exception}: {text}"
        for (model, exception, text), count in sorted(groups.items())
    )


def _first_line(text: str | None) -> str:
    return (text or "nothing").partition("\n")[0]
