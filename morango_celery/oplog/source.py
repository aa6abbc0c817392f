"""Beginning of the pipeline: lines of a file, parsed into changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from typing_extensions import override

from morango_celery.oplog import lines
from morango_celery.oplog.files import BUFFER_BYTES, OpenFile
from morango_celery.oplog.lines import Change, Line, LineError, parse
from morango_celery.stream import OperatorModule, Source, Transform

BATCH_BYTES = 8 * 1024 * 1024
"""Limit on the bytes of a log in one transaction, which takes a few times as much memory."""
KEPT_BYTES = 1000
"""Number of bytes kept of a line that is too long."""


class OplogSource(Source[Line]):
    """Source of the complete, non-empty lines of a file from `offset` on, up to its present end."""

    def __init__(
        self, file: OpenFile, offset: int = 0, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.file = file
        self.offset = offset
        self.should_stop = should_stop

    @override
    def stream(self) -> Iterator[Line]:
        offset = self.offset
        self.file.file.seek(offset)
        while (line := self._next(offset)) is not None and not self.should_stop():
            if line.cut_bytes or (line.content and not line.content.isspace()):
                yield line
            offset = line.end

    def _next(self, offset: int) -> Line | None:
        """Return the next line of the file; None if it has no newline yet."""
        most = lines.MAX_LINE_BYTES
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
    """A line that couldn't be parsed."""

    line: Line
    error: LineError


class BatchLines(OperatorModule[Line, list[Line]]):
    """Grouping of lines into lists, bounded in number and in bytes. A single line may exceed the bytes."""

    def __init__(self, most_lines: int, most_bytes: int = BATCH_BYTES) -> None:
        self.most_lines = most_lines
        self.most_bytes = most_bytes

    @override
    def __call__(self, items: Iterable[Line]) -> Iterator[list[Line]]:
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
    """Parsing of lines into changes."""

    @override
    def transform(self, item: list[Line]) -> list[Change | BadLine]:
        return [_parsed(line) for line in item]


def _parsed(line: Line) -> Change | BadLine:
    try:
        return parse(line)
    except LineError as error:
        return BadLine(line, error)
