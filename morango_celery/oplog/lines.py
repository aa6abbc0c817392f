"""Lines of a log: ``<unix time> SAVE|DELETE <Django JSON list>``, UTF-8, each ended by a newline."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, NamedTuple

from morango_celery.errors import RecordError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Limit on a line; a longer one is a dead letter. Escaped and quoted, such a line still fits in a
statement."""


class LineError(RecordError):
    """A line that doesn't have the form of a log's lines."""


class Operation(Enum):
    SAVE = "SAVE"
    DELETE = "DELETE"


_OPERATIONS = {operation.value.encode(): operation for operation in Operation}


class Line(NamedTuple):
    """A complete line of a file."""

    offset: int
    """Offset of its first byte."""
    content: bytes
    """Without the newline at its end."""
    cut_bytes: int = 0
    """Size of the end that `content` lacks, because the line is too long."""

    @property
    def size_bytes(self) -> int:
        return len(self.content) + self.cut_bytes

    @property
    def end(self) -> int:
        """Return the offset of the next line."""
        return self.offset + self.size_bytes + 1

    @property
    def text(self) -> str:
        """Return the line as text that a database can store.

        Bytes that are no text, and cut lines, are shown as Python's literals of bytes. So they are never
        mistaken for lines that could be applied, even if their escaped form is JSON.
        """
        if not self.cut_bytes and b"\x00" not in self.content:
            try:
                return self.content.decode()
            except UnicodeDecodeError:
                pass
        return repr(self.content)


class Change(NamedTuple):
    """Content of a line, applied as a whole or not at all."""

    line: Line
    operation: Operation
    objects: list[dict[str, Any]]
    """Objects in the form of Django's Python serializer."""


def format_line(unix_time: float, operation: Operation, objects: str) -> str:
    """Return a line without its newline.

    :param objects: a JSON list without newlines
    """
    return f"{unix_time:.6f} {operation.value} {objects}"


def parse(line: Line) -> Change:
    """Read a line.

    :raises LineError: its message names the fault
    """
    if line.cut_bytes:
        raise LineError(
            f"It is {line.size_bytes:,} bytes long; no more than {MAX_LINE_BYTES:,} are read of a line."
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
    """Return a text that every database can store: NUL and halves of characters are escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _shown(part: bytes) -> str:
    return ascii(part[:40].decode("utf-8", "backslashreplace"))
