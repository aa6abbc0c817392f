"""Signals of Django that Morango mutes while it writes, muted for one context instead of the whole process.

Morango takes away all receivers of a signal for a while, for every thread. Overlapping uses can make that
permanent, and deletions by other requests are recorded nowhere meanwhile. Here the signals stay as they are
for everybody who applies no sync.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db.models.signals import ModelSignal, post_delete, post_save, pre_save
from typing_extensions import override

from morango_celery.deserialization.code_edits import before_save

_muted: ContextVar[frozenset[ModelSignal]] = ContextVar("muted", default=frozenset())


class MutableSignal(ModelSignal):
    """Signal that reaches no receiver in a context that mutes it."""

    @override
    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        if self is pre_save and not named.get("raw"):
            before_save(sender, named.get("instance"))
        return [] if self in _muted.get() else super().send(sender, **named)

    @override
    def send_robust(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        return [] if self in _muted.get() else super().send_robust(sender, **named)


def install() -> None:
    """Make the signals that Morango mutes mutable. Twice: safe."""
    for signal in (pre_save, post_save, post_delete):
        signal.__class__ = MutableSignal


@contextmanager
def muted(*signals: ModelSignal) -> Iterator[None]:
    """Keep signals that the block sends, however indirectly, from all receivers.

    :param signals: some of those that `install` has made mutable
    """
    token = _muted.set(_muted.get().union(signals))
    try:
        yield
    finally:
        _muted.reset(token)
