"""Context of log lines: the run, batch, attempt and model that they are about.

A line of a `ContextLogger` has each as a field of its record, for formatters that write JSON, and at the end
of its text for all others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from morango_celery.printable import printable

FIELDS = ("run", "batch", "attempt", "model")
"""Names of the fields: a run's number, a batch's stage and number such as "2/17", the number of an attempt at
the batch, and the name of one or more models."""

MAX_FIELD_CHARACTERS = 200

_bound: ContextVar[Mapping[str, object]] = ContextVar("log_context", default=MappingProxyType({}))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to the lines that this thread logs inside; None takes a field away."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of lines with their context; ``extra`` adds fields to a single line."""

    @override
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        fields = _fields(kwargs.pop("extra", None) or {})
        text = ", ".join(f"{name} {fields[name]}" for name in FIELDS if name in fields)
        if text:
            template = str(msg) if args else str(msg).replace("%", "%%")
            msg, args = f"{template} [%s]", (*args, text)
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # past this method
        self.logger.log(level, msg, *args, extra=fields, **kwargs)


def get_logger(name: str) -> ContextLogger:
    return ContextLogger(logging.getLogger(name), {})


class ContextFilter(logging.Filter):
    """Filter for a handler that adds the fields to lines of other loggers, as of models' own code."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _fields({}).items():
            vars(record).setdefault(name, value)
        return True


def _fields(more: Mapping[str, object]) -> dict[str, object]:
    return {
        name: printable(value, MAX_FIELD_CHARACTERS) if isinstance(value, str) else value
        for name, value in {**_bound.get(), **more}.items()
        if value is not None
    }
