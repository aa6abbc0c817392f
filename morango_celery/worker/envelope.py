"""Rules for the headers, properties and body of a task's message, as far as Celery reads them.

Celery's own messages pass. Celery itself notices a malformed one late: while it takes the message in, or when
the task begins or ends. The error then ends the worker, and the message goes to the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from celery.utils.time import maybe_iso8601, maybe_make_aware

from morango_celery.version import FORM_HEADER, PAYLOAD_FORM_HEADER

MAX_CHARACTERS = 64 * 1024
MAX_NUMBER = 10**6
MAX_SECONDS = 10**8

Rule = Callable[[object], bool]


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)  # no broker can be sent these


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= MAX_SECONDS and math.isfinite(value)


def _are_limits(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_limit, value))


def moment_of(value: str | datetime) -> datetime:
    """Return the time of a header as Celery reads it.

    :raises Exception: the value is no time
    """
    moment: datetime = maybe_make_aware(maybe_iso8601(value), UTC)
    return moment


def _is_moment(value: object) -> bool:
    if not isinstance(value, str | datetime) or not value:
        return False
    try:
        moment = moment_of(value)
        return math.isfinite(moment.timestamp()) and moment.astimezone(UTC) is not None
    except (ValueError, OverflowError, TypeError, AttributeError):
        return False


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _are_named(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_signature(value: object) -> bool:
    """Return True if Celery can send the task that a message names to follow its own."""
    if not isinstance(value, Mapping) or not _is_text(value.get("task")):
        return False
    arguments, named, options = (value.get(name) for name in ("args", "kwargs", "options"))
    return (
        isinstance(arguments, list | tuple | None)
        and isinstance(named, Mapping | None)
        and isinstance(options, Mapping | None)
        and isinstance(value.get("subtask_type"), str | None)
    )


def _are_signatures(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_signature, value))


TEXT: tuple[Rule, str] = (_is_text, "a text")
NUMBER: tuple[Rule, str] = (_is_number, "a whole number that is not negative")

NEEDED = {"task": TEXT, "id": TEXT}
HEADERS: dict[str, tuple[Rule, str]] = {
    **dict.fromkeys(("lang", "shadow", "root_id", "parent_id", "group", "origin", "compression"), TEXT),
    **dict.fromkeys(("argsrepr", "kwargsrepr"), TEXT),
    **dict.fromkeys(("group_index", "retries", "replaced_task_nesting"), NUMBER),
    **dict.fromkeys((FORM_HEADER, PAYLOAD_FORM_HEADER), NUMBER),
    "timelimit": (_are_limits, "two numbers of seconds"),
    "eta": (_is_moment, "a time"),
    "expires": (_is_moment, "a time"),
    "ignore_result": (_is_flag, "true or false"),
    "stamped_headers": (_are_texts, "a list of texts"),
    "stamps": (_are_named, "named values"),
}
"""Rule of each optional header, and the words for it; absent and None always pass."""
EMBEDDED = {
    **dict.fromkeys(("callbacks", "errbacks", "chain"), (_are_signatures, "a list of tasks")),
    "chord": (_is_signature, "a task"),
}
PROPERTIES = {"correlation_id": TEXT, "reply_to": TEXT, "priority": NUMBER}
ADDRESS = {"exchange": TEXT, "routing_key": TEXT}


def flaw(headers: object, properties: object, delivery_info: object) -> str | None:
    """Return the first flaw of a message of Celery's second protocol, as a text; None if it has none."""
    for part, values in (("headers", headers), ("properties", properties), ("address", delivery_info)):
        if not isinstance(values, Mapping):
            return f"its {part} are not named"
    assert isinstance(headers, Mapping)
    assert isinstance(properties, Mapping)
    assert isinstance(delivery_info, Mapping)
    if not all(isinstance(name, str) for name in headers):
        return "its headers' names are not texts"
    for name, (rule, wanted) in NEEDED.items():
        if not rule(headers.get(name)):
            return f"its {name} is not {wanted}"
    return flaw_of(headers) or _first_flaw(properties, PROPERTIES) or _first_flaw(delivery_info, ADDRESS)


def flaw_of(headers: Mapping[str, Any]) -> str | None:
    """Return the first flaw of the optional headers, or of a first protocol's body, which has them inside."""
    return _first_flaw(headers, HEADERS)


def _first_flaw(values: Mapping[str, Any], rules: Mapping[str, tuple[Rule, str]]) -> str | None:
    for name, (rule, wanted) in rules.items():
        value = values.get(name)
        if value is not None and not rule(value):
            return f"its {name} is not {wanted}"
    return None


def flaw_of_body(body: object) -> str | None:
    """Return the flaw of a decoded body, in either protocol; None if it has none."""
    if isinstance(body, dict) and "args" in body:
        if not isinstance(body["args"], list | tuple) or not isinstance(body.get("kwargs", {}), dict):
            return "its body has no list of arguments and no named arguments"
        return flaw_of(body)
    match body:
        case [list(), dict(), None]:
            return None
        case [list(), dict(), dict() as options]:
            return _first_flaw(options, EMBEDDED)
    return "its body is not a list of arguments, named arguments and options"
