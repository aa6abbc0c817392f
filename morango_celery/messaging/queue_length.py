"""Length of the queue, as the broker tells it; without patience for one that doesn't answer."""

from __future__ import annotations

from celery import current_app
from kombu.exceptions import ChannelError

from morango_celery.errors import TransientError
from morango_celery.messaging.rabbitmq import bound_connections
from morango_celery.messaging.task_names import DESERIALIZE_BATCH, START_RUN
from morango_celery.printable import printable


def queue_length(patience_seconds: float) -> int:
    """Return the number of messages that no worker has taken yet, of all priorities and kinds.

    :param patience_seconds: time limit for the connection, and for each answer
    :raises TransientError: the broker can't be reached, or doesn't answer
    Cost: a connection of its own, and two requests to the broker.
    """
    bound_connections()
    limits = {
        "socket_timeout": patience_seconds,
        "socket_connect_timeout": patience_seconds,
        "retry_on_timeout": False,
    }
    connection = current_app.connection_for_read(
        connect_timeout=patience_seconds, transport_options=limits, heartbeat=0
    )
    transport = connection.transport
    try:  # without kombu's own retries
        established = transport.establish_connection()
        try:
            return sum(_length(transport.create_channel(established), name) for name in _queues())
        finally:
            transport.close_connection(established)
    except (*transport.connection_errors, *transport.channel_errors, OSError) as error:
        raise TransientError(f"The broker doesn't answer: {printable(error)}") from error


def _queues() -> set[str]:
    router = current_app.amqp.router
    return {router.route({}, name)["queue"].name for name in (START_RUN, DESERIALIZE_BATCH)}


def _length(channel: object, queue: str) -> int:
    try:
        length: int = channel.queue_declare(queue=queue, passive=True).message_count  # type: ignore[attr-defined]  # kombu's
    except ChannelError:  # Redis has no list for an empty queue, and RabbitMQ may not have it yet
        return 0
    return length
