"""A wrong clock, for processes that find this folder in PYTHONPATH: Python reads this module first.

Functions that count seconds, but not the time of day, stay as they are.
"""

import datetime
import os
import time
from typing import Any

from typing_extensions import override

AHEAD_SECONDS = float(os.environ["CLOCK_AHEAD_SECONDS"])
"""Negative for a clock that is behind."""

_RightDatetime = datetime.datetime
_right_time = time.time


class _AnyDatetime(type):
    @override
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _RightDatetime)

    @override
    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _RightDatetime)


class _WrongDatetime(_RightDatetime, metaclass=_AnyDatetime):
    """Instances are of the right class, which alone others know how to store, compare and encode."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _RightDatetime(*args, **kwargs)

    @classmethod
    @override
    def now(cls, tz: Any = None) -> Any:
        return _RightDatetime.now(tz) + datetime.timedelta(seconds=AHEAD_SECONDS)

    @classmethod
    @override
    def utcnow(cls) -> Any:
        return _RightDatetime.utcnow() + datetime.timedelta(seconds=AHEAD_SECONDS)


datetime.datetime = _WrongDatetime  # type: ignore[misc]
time.time = lambda: _right_time() + AHEAD_SECONDS
