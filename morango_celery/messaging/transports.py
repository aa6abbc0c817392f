"""Transport of this process's messages, and its numbers for priorities.

Redis gives a message with a lower number first. RabbitMQ gives one with a higher number first, up to the
``x-max-priority`` that its queue was declared with. A quorum queue takes numbers up to 4 for normal and
others for high, and gives two of high priority for one of normal; before RabbitMQ 4, it has no priorities.
"""

from __future__ import annotations

from functools import lru_cache

from celery import current_app
from kombu.transport import get_transport_cls
from kombu.utils.url import parse_url

MAX_PRIORITY = 9
"""Highest number of a message, and the ``x-max-priority`` of its queue."""

RABBITMQ = "amqp"


def driver_type() -> str:
    """Return kombu's word for the broker that this process sends to: "redis", "amqp" or another."""
    conf = current_app.conf
    url = conf.broker_write_url
    first = url if isinstance(url, str) else next(iter(url or ()), "")
    return driver_type_of(first.partition(";")[0], conf.broker_transport)


@lru_cache(maxsize=32)
def driver_type_of(url: str, transport: str | None = None) -> str:
    """Return kombu's word for the broker of a URL.

    :param transport: as Celery's ``broker_transport``
    :returns: an empty text for an unknown one
    """
    name = transport or (parse_url(url)["transport"] if "://" in url else url.partition("//")[0]) or RABBITMQ
    try:
        return str(getattr(get_transport_cls(name), "driver_type", ""))
    except (ImportError, AttributeError, KeyError):
        return ""


def number_of(urgency: int | None) -> int | None:
    """Return the number by which the broker knows how urgent a message is.

    :param urgency: one of `morango_celery.messaging.priorities.PRIORITIES`; None for the most urgent
    :returns: None for no number
    """
    if driver_type() == RABBITMQ:
        return MAX_PRIORITY - (urgency or 0)
    return urgency
