"""The explanation of a profile's models as text: a table, and paragraphs on those off the fast path."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain

from morango_celery.explanation.models import ModelExplanation
from morango_celery.explanation.statements import MEANING
from morango_celery.explanation.wording import (
    code_text,
    cycle_text,
    equivalent_text,
    handling,
    statements_in_short,
    statements_text,
    way,
)

WIDTH = 110
PAGE = "docs/how-to/declare-equivalents.md"
_INDENT = 14
_HEADINGS = ("stage", "model", "way", "equivalent", "statements", "depends on")


def as_text(profile: str, explained: Sequence[ModelExplanation]) -> list[str]:
    """Return the lines of an explanation."""
    fast = sum(each.is_on_fast_path for each in explained)
    further = dict.fromkeys(chain.from_iterable(each.statements.further for each in explained))
    more = f" +: and more: {'; '.join(further)}." if further else ""
    lines = [
        f"Profile {profile}: {len(explained)} models, {fast} of them on the fast path.",
        "",
        *_table([_HEADINGS, *map(_row, explained)]),
        "",
        *textwrap.wrap(f"{MEANING} n: number of records.{more}", WIDTH),
    ]
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in explained:
        if not each.is_on_fast_path:
            alike.setdefault((way(each), *_paragraph(each)), []).append(each.label)
    for (its_way, *paragraph), models in alike.items():
        lines += ["", *textwrap.wrap(f"{', '.join(models)}: {its_way}", WIDTH), *paragraph]
    if alike:
        said = f"A model is on the fast path once each reason is gone. How to declare an equivalent: {PAGE}."
        lines += ["", said]
    return lines


def _row(explained: ModelExplanation) -> tuple[str, ...]:
    return (
        str(explained.stage),
        explained.label,
        way(explained),
        explained.equivalent.value,
        statements_in_short(explained),
        ", ".join(each.label.rpartition(".")[2] for each in explained.dependencies),
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.rjust(widths[0]), *map(str.ljust, others, widths[1:])]
        yield "  ".join(cells).rstrip()


def _paragraph(explained: ModelExplanation) -> Iterator[str]:
    for reason in explained.reasons:
        yield from _item("why", str(reason))
        for code in reason.code:
            yield f"{'':{_INDENT}}- {code_text(code)}"
    yield from _item("records", "; ".join(f"{heading} {text}" for heading, text in handling(explained)))
    if explained.in_cycle_with:
        yield from _item("cycle", cycle_text(explained))
    if explained.equivalent_problem is not None:
        yield from _item("equivalent", equivalent_text(explained))
    yield from _item("statements", statements_text(explained))
    for advice in explained.advice:
        yield from _item("faster", advice)


def _item(heading: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {heading:{_INDENT - 2}}",
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
