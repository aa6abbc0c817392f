"""The broker itself: whether it answers, and under which address."""

from __future__ import annotations

from celery import current_app
from kombu.exceptions import ChannelError, OperationalError
from kombu.exceptions import ConnectionError as BrokerConnectionError

from morango_celery.errors import BrokerUnreachableError
from morango_celery.messaging.rabbitmq import bound_connections
from morango_celery.printable import printable


def reach_broker(seconds: float) -> str:
    """Connect to the broker and return its address, without its password.

    :param seconds: time limit of each step; one of the whole is the caller's to set
    :raises BrokerUnreachableError: it doesn't answer
    Cost: a connection of its own, and the messages by which it is made.
    """
    bound_connections()
    with current_app.connection_for_write(connect_timeout=seconds) as connection:
        if connection.transport.driver_type == "redis":  # which has time limits of its own, or none
            connection.transport_options.update(socket_timeout=seconds, socket_connect_timeout=seconds)
        address = printable(connection.as_uri())
        try:
            connection.ensure_connection(max_retries=len(connection.alt), interval_start=0, interval_step=0)
        except (OperationalError, BrokerConnectionError, ChannelError, OSError) as error:
            raise BrokerUnreachableError(f"{address} doesn't answer: {printable(error)}") from error
    return address
