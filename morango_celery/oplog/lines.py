"""The lines of a log: ``<unix time> SAVE|DELETE <Django JSON list>``, UTF-8, each ended by a newline."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, NamedTuple

from morango_celery.errors import RecordError

LONGEST_LINE_BYTES = 64 * 1024 * 1024
"""What is longer is a dead letter. Escaped and quoted, this is still no longer than a statement may be."""


class LineError(RecordError):
    """The line is not built like one of a log."""


class Operation(Enum):
    SAVE = "SAVE"
    DELETE = "DELETE"


_OPERATIONS = {operation.value.encode(): operation for operation in Operation}


class Line(NamedTuple):
    """A complete line of a file."""

    offset: int
    """Where it begins, in bytes."""
    content: bytes
    """Without the newline at its end."""
    cut_bytes: int = 0
    """How much of its end is left out of `content`, because it is longer than any line that is read."""

    @property
    def size_bytes(self) -> int:
        return len(self.content) + self.cut_bytes

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + self.size_bytes + 1

    @property
    def text(self) -> str:
        """The line as a database can keep it.

        What is no text, or not all of it, is shown as Python writes bytes: so nobody takes it for a line that
        could be applied, as one might be whose escaped form is JSON.
        """
        if not self.cut_bytes and b"\x00" not in self.content:
            try:
                return self.content.decode()
            except UnicodeDecodeError:
                pass
        return repr(self.content)


class Change(NamedTuple):
    """What a line says: the unit that is applied as a whole, or not at all."""

    line: Line
    operation: Operation
    objects: list[dict[str, Any]]
    """As Django's Python deserializer takes them."""


def format_line(unix_time: float, operation: Operation, objects: str) -> str:
    """A line without its newline.

    :param objects: a JSON list without newlines
    """
    return f"{unix_time:.6f} {operation.value} {objects}"


def parse(line: Line) -> Change:
    """:raises LineError: says what is wrong with it"""
    if line.cut_bytes:
        raise LineError(
            f"It is {line.size_bytes:,} bytes long; no more than {LONGEST_LINE_BYTES:,} are read of a line."
        )
    parts = line.content.split(b" ", 2)
    if len(parts) != 3:
        raise LineError("It is not built like <unix time> SAVE|DELETE <JSON list>.")
    time, word, document = parts
    try:
        float(time)
    except ValueError:
        raise LineError(f"It begins with {_shown(time)}, which is no unix time.") from None
    operation = _OPERATIONS.get(word)
    if operation is None:
        raise LineError(f"It says {_shown(word)}, which is neither SAVE nor DELETE.")
    try:
        objects = json.loads(document.decode())
    except (ValueError, RecursionError) as error:
        raise LineError(f"Its JSON can't be read: {error}") from None
    except MemoryError:
        raise LineError("Its JSON takes more memory than there is.") from None
    if not isinstance(objects, list):
        raise LineError("Its JSON is not a list of objects.")
    for one in objects:
        if not isinstance(one, dict) or not isinstance(one.get("model"), str):
            raise LineError("Its JSON has an object without a model.")
        if not isinstance(one.setdefault("fields", {}), dict):
            raise LineError("Its JSON has an object whose fields are not an object.")
    return Change(line, operation, objects)


def printable(text: str) -> str:
    """What every database can store of a text."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _shown(part: bytes) -> str:
    return ascii(part[:40].decode("utf-8", "backslashreplace"))
