"""System checks of Celery's settings for RabbitMQ: queues with priorities, and messages it doesn't take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (as Django names it)

from morango_celery.checks.broker import broker_urls
from morango_celery.checks.workers import are_used
from morango_celery.messaging import task_names
from morango_celery.messaging.transports import MAX_PRIORITY, RABBITMQ, driver_type_of

NEEDED = {
    "confirm_publish": (
        True,
        "a message that it doesn't take counts as sent, until STALLED_AFTER_SECONDS are over",
    ),
    "max_retries": (1, "a process that can't connect tries to for ever"),
}
"""Transport options: the value to set, and the result of leaving them out."""

CONSUMER_SECONDS = 1800
"""Default of RabbitMQ's ``consumer_timeout``."""


def _is_used() -> bool:
    return are_used() and any(driver_type_of(parts["transport"]) == RABBITMQ for parts in broker_urls())


@register("morango_celery")
def check_sending(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if messages that RabbitMQ doesn't take are not noticed, or are sent without end."""
    options = current_app.conf.broker_transport_options or {}
    missing = {name: found for name, found in NEEDED.items() if not options.get(name)}
    if not missing or not _is_used():
        return []
    return [
        Warning(
            "Celery's broker is RabbitMQ, and its broker_transport_options have no "
            f"{' and no '.join(missing)}: {', and '.join(loss for _, loss in missing.values())}.",
            hint="Add to broker_transport_options (CELERY_BROKER_TRANSPORT_OPTIONS): "
            + ", ".join(f'"{name}": {value}' for name, (value, _) in missing.items())
            + ".",
            id="morango_celery.W015",
        )
    ]


@register("morango_celery")
def check_priorities(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that RabbitMQ can declare the queues of runs, and keeps the priorities of their messages."""
    return list(_flaws_of_queues()) if _is_used() else []


def _flaws_of_queues() -> Iterator[CheckMessage]:
    for queue in _queues():
        arguments = queue.queue_arguments or {}
        highest = queue.max_priority or arguments.get("x-max-priority")
        if arguments.get("x-queue-type") == "quorum":
            if highest is not None:
                yield Error(
                    f"The queue {queue.name!r} is a quorum queue with x-max-priority, which RabbitMQ refuses "
                    "to declare: nothing can be sent.",
                    hint="Set task_queue_max_priority (CELERY_TASK_QUEUE_MAX_PRIORITY) to None. From "
                    "RabbitMQ 4 on, quorum queues have two priorities without it.",
                    id="morango_celery.E012",
                )
        elif (highest or 0) < MAX_PRIORITY:
            yield Warning(
                f"The queue {queue.name!r} is declared without x-max-priority={MAX_PRIORITY}: RabbitMQ "
                "delivers small runs behind large ones.",
                hint=f"Set task_queue_max_priority (CELERY_TASK_QUEUE_MAX_PRIORITY) to {MAX_PRIORITY}. "
                "RabbitMQ doesn't change a queue: delete the present one first, while no worker runs.",
                id="morango_celery.W016",
            )


def _queues() -> list[Any]:
    amqp = current_app.amqp
    router = amqp.Router(queues=amqp.Queues(dict(amqp.queues)))  # a copy: looking a queue up adds it
    found = (router.route({}, name)["queue"] for name in (task_names.START_RUN, task_names.DESERIALIZE_BATCH))
    return list({queue.name: queue for queue in found}.values())


@register("morango_celery")
def check_consumer_timeout(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if RabbitMQ, by default, takes a worker for dead while it still executes a task."""
    limit = current_app.conf.task_time_limit
    if not limit or limit < CONSUMER_SECONDS or not _is_used():
        return []
    return [
        Warning(
            f"Celery's task_time_limit ({limit} s) is not below RabbitMQ's consumer_timeout "
            f"({CONSUMER_SECONDS} s by default): it closes the channel of a worker whose task takes longer, "
            "and gives the message to another one.",
            hint="Set a lower task_time_limit (CELERY_TASK_TIME_LIMIT), or a longer consumer_timeout in "
            "rabbitmq.conf, and silence this check.",
            id="morango_celery.W017",
        )
    ]
