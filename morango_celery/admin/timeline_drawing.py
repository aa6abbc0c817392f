"""Drawing of a run's timeline as SVG: a row for each stage, and one for each worker.

All texts go through `format_html`. Colours come from the style sheet, so that nothing of it is inline.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from morango_celery.admin.syncs import shortened
from morango_celery.management.formatting import duration, number_of
from morango_celery.runs.timeline import StageSpan, Timeline, Work

WIDTH = 1200
LABELS = 260
"""Width of the labels at the left."""
ROW, GAP, BAR = 22, 14, 14
"""Height of a row, of the space between stages and workers, and of a bar."""
AXIS = 24
LEAST_WIDTH = 1.5
"""Width that the shortest work is drawn with."""
LABEL_CHARACTERS = 40
STEPS_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
MAX_STEPS = 8


def drawing(timeline: Timeline, summary: str) -> SafeString:
    """Return the timeline as one SVG element.

    :param summary: text for readers who don't see it
    """
    canvas = _Canvas(timeline)
    height = AXIS + ROW * (1 + len(timeline.stages) + len(timeline.workers)) + GAP + 4
    parts = [*canvas.axis(height), *canvas.waiting(), *canvas.stages(), *canvas.workers()]
    return format_html(
        '<svg class="morango-timeline" viewBox="0 0 {} {}" role="img" aria-labelledby="timeline-title '
        'timeline-text" xmlns="http://www.w3.org/2000/svg"><title id="timeline-title">Timeline of run {}'
        '</title><desc id="timeline-text">{}</desc>{}</svg>',
        WIDTH,
        height,
        timeline.run.pk,
        summary,
        _joined(parts),
    )


class _Canvas:
    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.seconds = max((timeline.end - timeline.begin).total_seconds(), 0.001)
        self.first_stage = AXIS + ROW
        self.first_worker = self.first_stage + ROW * len(timeline.stages) + GAP

    def x(self, time: datetime.datetime) -> float:
        share = (time - self.timeline.begin).total_seconds() / self.seconds
        return LABELS + min(max(share, 0.0), 1.0) * (WIDTH - LABELS - 4)

    def axis(self, height: float) -> Iterator[SafeString]:
        fitting = (step for step in STEPS_SECONDS if self.seconds / step <= MAX_STEPS)
        step = next(fitting, self.seconds / MAX_STEPS) if self.seconds >= 1 else self.seconds / 4
        for number in range(int(self.seconds / step) + 1):
            x = LABELS + number * step / self.seconds * (WIDTH - LABELS - 4)
            yield format_html(
                '<line class="axis" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>'
                '<text class="axis" x="{3}" y="14">{4}</text>',
                _number(x),
                AXIS - 6,
                _number(height),
                _number(min(x + 2, WIDTH - 70)),
                duration(number * step),
            )

    def waiting(self) -> Iterator[SafeString]:
        run = self.timeline.run
        yield self._label("from the request", AXIS)
        until = run.started_at or self.timeline.end
        waited = duration(max((until - run.created_at).total_seconds(), 0.0))
        yield self._bar(
            "waits", run.created_at, until, AXIS, f"Waited for {waited} to be begun. {run.sharing}"
        )
        if run.started_at is not None:
            took = duration(max((self.timeline.end - run.started_at).total_seconds(), 0.0))
            yield self._bar("run", run.started_at, self.timeline.end, AXIS, f"Under way for {took}.")

    def stages(self) -> Iterator[SafeString]:
        before: tuple[float, float] | None = None
        for place, stage in enumerate(self.timeline.stages):
            y = self.first_stage + ROW * place
            yield self._label(stage_name(stage), y)
            if stage.begun_at is None:
                continue
            end = stage.ended_at or self.timeline.end
            if before is not None:  # a stage waits for the end of the one before
                corners = (before, (before[0], y + ROW / 2), (self.x(stage.begun_at), y + ROW / 2))
                points = " ".join(f"{_number(x)},{_number(at)}" for x, at in corners)
                yield format_html('<polyline class="waited-for" points="{}"/>', points)
            kind = "stage failed" if stage.failed else "stage"
            yield self._bar(kind, stage.begun_at, end, y, stage_text(stage))
            before = (self.x(end), y + ROW / 2)

    def workers(self) -> Iterator[SafeString]:
        rows = {name: self.first_worker + ROW * place for place, name in enumerate(self.timeline.workers)}
        for name, y in rows.items():
            yield self._label(name, y)
        for work in self.timeline.work:
            end = work.ended_at or self.timeline.end
            yield self._bar(_kind(work), work.begun_at, end, rows[work.worker], work_text(work))

    def _label(self, text: str, y: float) -> SafeString:
        short = shortened(text)
        short = short if len(short) <= LABEL_CHARACTERS else f"{short[: LABEL_CHARACTERS - 1]}…"
        return format_html(
            '<text class="label" x="0" y="{}"><title>{}</title>{}</text>', y + ROW - 7, text, short
        )

    def _bar(
        self, kind: str, begin: datetime.datetime, end: datetime.datetime, y: float, text: str
    ) -> SafeString:
        x = self.x(begin)
        return format_html(
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            kind,
            _number(x),
            _number(y + (ROW - BAR) / 2),
            _number(max(self.x(end) - x, LEAST_WIDTH)),
            BAR,
            text,
        )


def stage_name(stage: StageSpan) -> str:
    """Return a name such as "stage 3: unit" or "stages 4 to 90: unit, pass 2"."""
    numbers = f"stage {stage.first}" if stage.first == stage.last else f"stages {stage.first} to {stage.last}"
    again = f", pass {stage.pass_number}" if stage.pass_number > 1 else ""
    return f"{numbers}: {stage.models}{again}"


def stage_text(stage: StageSpan) -> str:
    """Return a sentence about a stage's batches and records."""
    texts = [number_of(stage.batches, "batch", "batches"), number_of(stage.records, "record")]
    texts += [f"{stage.failed:,} failed"] if stage.failed else []
    texts += [f"{stage.split:,} of them split"] if stage.split else []
    texts += [f"{stage.open:,} of them open"] if stage.open else []
    return f"{stage_name(stage)}. {', '.join(texts)}."


def work_text(work: Work) -> str:
    """Return sentences about the work of a worker: what it was, how long it took, and how it ended."""
    subject = (
        f"batch {work.stage}/{work.number}"
        if work.number
        else f"{work.batches:,} batches of stage {work.stage}"
    )
    if work.reason is not None:
        split = " The batch was split." if work.split else ""
        return f"An attempt at {subject} that came to no result: {work.reason}.{split}"
    took = "" if work.ended_at is None else f" in {duration((work.ended_at - work.begun_at).total_seconds())}"
    texts = [f"{subject}: {work.records:,} records{took or ', no result yet'}"]
    texts += [f"{work.failed:,} failed"] if work.failed else []
    texts += [f"attempt {work.attempts}"] if work.attempts > 1 else []
    texts += [f"{duration(work.waited_seconds)} after its message"] if work.waited_seconds is not None else []
    texts += [f"a part of batch {work.stage}/{work.split_from}, which was split"] if work.split_from else []
    texts += ["of exclusive models, executed one after another"] if work.split_from == 0 else []
    return f"{', '.join(texts)}."


def _kind(work: Work) -> str:
    if work.reason is not None:
        return "batch lost"
    if work.ended_at is None:
        return "batch open"
    return "batch failed" if work.failed else "batch again" if work.attempts > 1 else "batch"


def _number(value: float) -> str:
    return f"{value:.1f}"


def _joined(parts: Iterable[SafeString]) -> SafeString:
    return format_html_join(mark_safe("\n"), "{}", ((part,) for part in parts))
