"""Offloading of a message's large arguments to the store, those of linked tasks included."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from morango_celery.errors import MessageTooLargeError, PayloadStoreUnavailableError
from morango_celery.payloads.conf import settings
from morango_celery.payloads.configured import payload_store
from morango_celery.payloads.reference import Reference
from morango_celery.payloads.values import canonical
from morango_celery.printable import printable
from morango_celery.version import PAYLOAD_FORM, PAYLOAD_FORM_HEADER

logger = logging.getLogger(__name__)

MARK = "payloads"
"""Name of the header that lists the arguments that are references, and of the same option of a signature. A
signature has both: a worker that doesn't know its task hands the header on."""

COMPOSITIONS = ("celery.chain", "celery.group", "celery.chord")
LINKED = ("link", "chain", "chord")
"""Options that contain signatures. ``link_error`` is left out: Celery may call that without a message."""

Place = int | str
"""A position, counted from the end, or a name."""


@runtime_checkable
class Recipient(Protocol):
    """A task that resolves references."""

    def name_of(self, place: Place, count: int) -> str | None:
        """Return the name of an argument's parameter; `count` is the number of positional arguments."""

    def may_offload(self, name: str | None) -> bool:
        """Return True if the argument may travel as a reference."""


@dataclass
class Arguments:
    """A task's arguments as they are sent."""

    args: list[Any]
    kwargs: dict[str, Any]
    marked: list[Place] = field(default_factory=list)
    """The places of those that are references."""

    def refer(self, place: Place, reference: Reference) -> None:
        container: Any = self.args if isinstance(place, int) else self.kwargs
        container[place] = reference.as_json()
        self.marked.append(place)


@dataclass(frozen=True)
class _Value:
    """An argument that is still in the message."""

    owner: Arguments
    place: Place
    data: bytes
    may_be_offloaded: bool


class ArgumentOffloader:
    """Collector of arguments. `offload` replaces the large ones with references, in two requests at most."""

    def __init__(self, tasks: Mapping[str, object], *, enabled: bool) -> None:
        """Begin with no arguments.

        :param tasks: all known tasks, by name
        :param enabled: False leaves all values in the message; only given references stay references
        """
        self._tasks = tasks
        self._enabled = enabled
        self._values: list[_Value] = []
        self._referenced: list[Reference] = []
        self._signed: list[tuple[MutableMapping[str, Any], Arguments]] = []

    def arguments(
        self,
        task: Recipient,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        marked: Sequence[Place] = (),
        more: int = 0,
    ) -> Arguments:
        """Collect a task's arguments, and return the copies that `offload` will change.

        :param marked: places of arguments that are references already
        :param more: number of positional arguments that will be put before these
        """
        own = Arguments(list(args), dict(kwargs))
        count = len(own.args)
        for place in (*range(-count, 0), *own.kwargs):
            value = own.args[place] if isinstance(place, int) else own.kwargs[place]
            name = task.name_of(place, count + more)
            if place in marked:
                value = Reference.from_json(value)
            if isinstance(value, Reference):
                own.refer(place, value)
                self._referenced.append(value)
            elif self._enabled and (data := _as_json(value)):
                self._values.append(_Value(own, place, data, task.may_offload(name)))
        return own

    def signatures(self, found: Any) -> Any:
        """Collect the arguments of signatures, and return copies of these as they travel in a message."""
        if found is None or isinstance(found, str):
            return found
        return (
            self._signature(found) if isinstance(found, Mapping) else [self.signatures(one) for one in found]
        )

    def _signature(self, signature: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(signature.get("options") or {})
        for name in LINKED:
            if options.get(name):
                options[name] = self.signatures(options[name])
        copy = {**signature, "options": options}
        task = self._tasks.get(signature["task"])
        if signature["task"] in COMPOSITIONS:
            parts = ("tasks", "header", "body")
            copy["kwargs"] = {
                name: self.signatures(value) if name in parts else value
                for name, value in signature["kwargs"].items()
            }
        elif isinstance(task, Recipient):
            own = self.arguments(
                task,
                signature["args"] or (),
                signature["kwargs"] or {},
                options.get(MARK, ()),
                more=0 if signature.get("immutable") else 1,  # the result of the task before
            )
            copy.update(args=own.args, kwargs=own.kwargs)
            self._signed.append((options, own))
        return copy

    def offload(self, due_in_seconds: float = 0) -> None:
        """Store the large arguments, and extend the time to live of given references.

        :param due_in_seconds: time until the message may be delivered
        :raises MessageTooLargeError: the arguments that may not be stored are too large; nothing was stored
        :raises PayloadStoreUnavailableError: there is something to store, and the store can't be reached
        """
        large = self._to_offload()
        seconds = settings.TTL_SECONDS + max(due_in_seconds, 0)
        if large:
            references = payload_store().put_all([value.data for value in large], seconds)
            for value, reference in zip(large, references, strict=True):
                value.owner.refer(value.place, reference)
        self._extend_ttl(seconds)
        for options, own in self._signed:
            if own.marked:
                options[MARK] = own.marked
                options["headers"] = {
                    **(options.get("headers") or {}),
                    MARK: own.marked,
                    PAYLOAD_FORM_HEADER: PAYLOAD_FORM,
                }

    def _extend_ttl(self, seconds: float) -> None:
        """Extend the time to live of given references, if the store is there.

        Without it the message is sent all the same: a retry is just waiting for its return.
        """
        try:
            payload_store().extend_ttl(self._referenced, seconds)
        except PayloadStoreUnavailableError as error:
            logger.warning(
                "The payloads that a message refers to are kept no longer than before: %s", printable(error)
            )

    def _to_offload(self) -> list[_Value]:
        most_bytes, min_bytes = settings.MAX_MESSAGE_BYTES, settings.MIN_BYTES
        left = sum(len(value.data) for value in self._values)
        large = []
        for value in sorted(self._values, key=lambda value: len(value.data), reverse=True):
            if value.may_be_offloaded and (len(value.data) >= min_bytes or left > most_bytes):
                large.append(value)
                left -= len(value.data)
        if left > most_bytes:
            raise MessageTooLargeError(
                f"The arguments that have to travel in the message are {left:,} bytes, and "
                f"MORANGO_CELERY_PAYLOADS['MAX_MESSAGE_BYTES'] is {most_bytes:,}. Let more of them be stored "
                "(the task's inline_arguments say which may not), or raise it."
            )
        return large


def _as_json(value: Any) -> bytes | None:
    """Return a value's JSON; None if it can't be large, or if it has none, which Celery will refuse."""
    if value is None or isinstance(value, bool | int | float):
        return None
    try:
        return canonical(value)
    except (TypeError, ValueError):
        return None


def due_in_seconds(countdown: float | None, eta: datetime.datetime | str | None) -> float:
    """Return the least number of seconds that a message with these options will wait."""
    if countdown:
        return float(countdown)
    if not eta:
        return 0.0
    due = datetime.datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    if due.tzinfo is None:
        due = due.replace(tzinfo=datetime.UTC)
    return (due - datetime.datetime.now(datetime.UTC)).total_seconds()
