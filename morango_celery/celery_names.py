"""Names of Celery, kombu, billiard and amqp that no documentation promises, by the feature that needs them.

`morango_celery.celery_compat` uses them. Where one is missing, it works without the feature. A system check
and each worker that starts say which name they looked for, and which feature is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

from typing_extensions import override

_BILLIARD = "billiard.common"
_CONSUMER = "celery.worker.consumer.consumer:Consumer"
_EVENTS = "celery.events.dispatcher:EventDispatcher"
_REDIS = "kombu.transport.redis"
_STATE = "celery.worker.state"
_VIRTUAL = "kombu.transport.virtual.base"

NAMES: Mapping[str, Mapping[str, str]] = {
    "fairness: workers read urgent messages alone while there are any, and large runs may starve": {
        f"{_REDIS}:Channel._brpop_start": "queue_order_strategy that sees priorities",
        f"{_REDIS}:Channel.priority": "the same",
        f"{_REDIS}:Channel.priority_steps": "the same",
    },
    "the refusal of malformed messages: one of them ends each worker that reads it": {
        f"{_CONSUMER}.create_task_handler": "signal whose receivers may reject a message",
        "celery.worker.strategy:default": "the same",
        f"{_REDIS}:Channel.handlers": "callback of a channel for texts that are no messages",
        f"{_REDIS}:QoS.restore_by_tag": "the same",
        f"{_VIRTUAL}:Channel.Message": "the same",
        f"{_VIRTUAL}:Channel._get_and_deliver": "the same",
        f"{_VIRTUAL}:Channel._reset_cycle": "the same",
        f"{_REDIS}:QoS._remove_from_indices": "QoS.forget(delivery_tag)",
        f"{_VIRTUAL}:Transport.channels": "callback for each channel that a connection opens",
        "kombu.transport.base:Transport.create_channel": "the same",
        "amqp.connection:Connection.channels": "the same",
        "amqp.channel:Channel.callbacks": "callback of kombu.Consumer for errors of its callbacks",
        "amqp.method_framing:frame_handler": "callback of amqp.Connection for properties that it can't read",
    },
    "sending in bounded time: a RabbitMQ that takes no messages holds up the request of a sync": {
        "amqp.abstract_channel:AbstractChannel.wait": "read_timeout that covers answers and confirmations",
        "amqp.connection:Connection.blocking_read": "time-outs that heartbeats don't extend",
        "amqp.connection:Connection.collect": "Connection.abort()",
        "kombu.transport.pyamqp:Transport.Connection": "transport option for the class of connections",
    },
    "events in bounded time: a broker that doesn't answer holds up the event loop of a worker": {
        "celery.app.events:Events.dispatcher_cls": "setting for the class",
        f"{_EVENTS}._group_buffer": "EventDispatcher.extend_buffer() that takes grouped events along",
        f"{_EVENTS}._outbound_buffer": "the same",
        f"{_EVENTS}._publish": "time limit and retry policy as arguments of EventDispatcher",
    },
    "the survival of outages: a Redis that doesn't answer may end a worker": {
        f"{_REDIS}:Channel.auto_delete_queues": "Channel.close() that gets past a lost connection",
        f"{_VIRTUAL}:QoS.ack": "QoS that frees its slot when an acknowledgement can't be sent",
    },
    "shutdown in bounded time: batches that hang hold up a worker that is told to stop": {
        f"{_BILLIARD}:REMAP_SIGTERM": "setting for the meaning of SIGTERM",
        "billiard.pool:Pool._pool": "documented TaskPool.info['processes']",
        "celery.concurrency.base:BasePool._pool": "the same",
        "celery.platforms:signals": "setting that leaves signals to the project",
        f"{_CONSUMER}.cancel_active_requests": "soft shutdown that lasts no longer than its tasks",
        f"{_STATE}:active_requests": "documented celery.worker.state",
        f"{_STATE}:reserved_requests": "the same",
        f"{_STATE}:should_stop": "WorkController.request_stop()",
    },
    "uncounting an attempt whose process is ended: it counts, and its batch waits for recovery": {
        f"{_BILLIARD}:TERM_SIGNAL": "signal task_terminating, sent in the process of the task",
        f"{_BILLIARD}:terminate_handler_fired": "the same",
    },
    "soft time limits that no model's code can catch: such code goes on until its process is killed": {
        "billiard.pool:SIG_SOFT_TIMEOUT": "setting for the class that a soft time limit raises",
        "billiard.pool:soft_timeout_sighandler": "the same",
    },
    "tasks with stored arguments that call their own body: references are resolved twice": {
        "celery.app.task:Context._protected": "Context.is_call_of_worker",
    },
    "one client for all commands to Redis: each takes twice its time": {
        f"{_REDIS}:Channel._create_client": "the same in kombu itself",
    },
    "`python -m morango_celery.worker`: start workers by `celery worker`": {
        "celery.app.utils:find_app": "documented celery.bin",
        "celery.bin.base:CLIContext": "the same",
        "celery.bin.worker:worker": "the same",
    },
}
"""Names as ``package.module:Class.attribute``, by the feature that they serve and its loss. Each has the
public API that would replace it, to be proposed upstream."""


EVENTS = "events in bounded time"
SENDING = "sending in bounded time"
"""Beginnings of two features that need all of their names at once."""


class Missing(NamedTuple):
    """A name that the installed packages don't have."""

    place: str
    feature: str

    @override
    def __str__(self) -> str:
        return f"{self.place} is not there. Without it, there is no {self.feature.removeprefix('the ')}."


def missing_names() -> Iterator[Missing]:
    """Yield the names that the installed packages don't have."""
    for feature, names in NAMES.items():
        yield from (Missing(place, feature) for place in names if found(place, _MISSING) is _MISSING)


@lru_cache
def is_whole(feature: str) -> bool:
    """Return True if all names are there that a feature, given by its beginning, needs."""
    needed = (names for each, names in NAMES.items() if each.startswith(feature))
    return all(found(place, _MISSING) is not _MISSING for names in needed for place in names)


def found(place: str, default: Any) -> Any:
    """Return the object that a name stands for, or the default if the installed packages don't have it.

    An attribute that a class sets in ``__init__`` counts as there, and stands for its own name.
    """
    module, _, path = place.partition(":")
    try:
        value: Any = import_module(module)
    except ImportError:
        return default
    for attribute in path.split("."):
        if hasattr(value, attribute):
            value = getattr(value, attribute)
        elif isinstance(value, type) and _is_set_by_init(value, attribute):
            return attribute
        else:
            return default
    return value


_MISSING = object()


def _is_set_by_init(owner: type[Any], attribute: str) -> bool:
    codes = (getattr(vars(base).get("__init__"), "__code__", None) for base in owner.__mro__)
    return any(attribute in code.co_names for code in codes if code is not None)
