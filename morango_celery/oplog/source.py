"""The beginning of the pipeline: lines of a file, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from morango_celery.oplog.files import OpenFile
from morango_celery.oplog.lines import Change, Line, LineError, parse
from morango_celery.stream import Source, Transform


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
        for content in self.file.file:
            if self.should_stop() or not content.endswith(b"\n"):
                return
            if not content.isspace():
                yield Line(offset, content[:-1])
            offset += len(content)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that says nothing that could be applied."""

    line: Line
    error: LineError


class ParseLines(Transform[list[Line], list[Change | BadLine]]):
    """Changes in place of lines."""

    def transform(self, item: list[Line]) -> list[Change | BadLine]:
        return [_parsed(line) for line in item]


def _parsed(line: Line) -> Change | BadLine:
    try:
        return parse(line)
    except LineError as error:
        return BadLine(line, error)
