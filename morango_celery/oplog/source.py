"""The beginning of the pipeline: lines of a file, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from morango_celery.oplog import lines
from morango_celery.oplog.files import BUFFER_BYTES, OpenFile
from morango_celery.oplog.lines import Change, Line, LineError, parse
from morango_celery.stream import Source, Stage, Transform

BATCH_BYTES = 8 * 1024 * 1024
"""How much of a log is applied in one transaction. A few times as much memory is taken meanwhile."""
KEPT_BYTES = 1000
"""How much is kept of a line that is too long."""


class OplogSource(Source[Line]):
    """The complete lines of a file from `offset` on, but for empty ones. Ends where the file ends for now."""

    def __init__(
        self, file: OpenFile, offset: int = 0, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.file = file
        self.offset = offset
        self.should_stop = should_stop

    def stream(self) -> Iterator[Line]:
        offset = self.offset
        self.file.file.seek(offset)
        while (line := self._next(offset)) is not None and not self.should_stop():
            if line.cut_bytes or (line.content and not line.content.isspace()):
                yield line
            offset = line.end

    def _next(self, offset: int) -> Line | None:
        """The line that begins where the file is read; None when it has no newline yet."""
        most = lines.LONGEST_LINE_BYTES
        content = self.file.file.readline(most + 1)
        if content.endswith(b"\n"):
            return Line(offset, content[:-1])
        if len(content) <= most:
            return None
        size = len(content)
        while part := self.file.file.readline(BUFFER_BYTES):
            size += len(part)
            if part.endswith(b"\n"):
                return Line(offset, content[:KEPT_BYTES], size - 1 - KEPT_BYTES)
        return None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that says nothing that could be applied."""

    line: Line
    error: LineError


class BatchLines(Stage[Line, list[Line]]):
    """Lists of lines, bounded by their number and by their size; one line may be larger than that alone."""

    def __init__(self, most_lines: int, most_bytes: int = BATCH_BYTES) -> None:
        self.most_lines = most_lines
        self.most_bytes = most_bytes

    def apply(self, items: Iterator[Line]) -> Iterator[list[Line]]:
        batch: list[Line] = []
        size = 0
        for line in items:
            if batch and (len(batch) == self.most_lines or size + len(line.content) > self.most_bytes):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.content)
        if batch:
            yield batch


class ParseLines(Transform[list[Line], list[Change | BadLine]]):
    """Changes in place of lines."""

    def transform(self, item: list[Line]) -> list[Change | BadLine]:
        return [_parsed(line) for line in item]


def _parsed(line: Line) -> Change | BadLine:
    try:
        return parse(line)
    except LineError as error:
        return BadLine(line, error)
