"""System checks of Celery's settings for messages: broker, format, and redelivery."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (as Django names it)
from kombu.utils.url import parse_url

from morango_celery.checks.workers import are_used

VISIBILITY_SECONDS = {"redis": 3600, "rediss": 3600, "sentinel": 3600, "sqs": 1800}
"""Default time after which these transports deliver an unacknowledged message again. Others wait for the
connection to break."""

REDIS = ("redis", "rediss", "redis+socket", "sentinel")
SOCKET_TIMEOUTS = ("socket_timeout", "socket_connect_timeout")

JSON = {"json", "application/json"}


def broker_urls() -> list[dict[str, Any]]:
    """Return the parts of each URL of the broker, as kombu reads them; none if Celery has no URL."""
    url = current_app.conf.broker_url
    urls = url.split(";") if isinstance(url, str) else url or []
    return [parse_url(one) for one in urls if one]


@register("morango_celery")
def check_broker(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if this process knows no broker to send messages to."""
    if not are_used() or broker_urls():
        return []
    return [
        Warning(
            "Celery has no broker_url in this process: syncs that arrive here wait until a worker asks for "
            "them.",
            hint="Import the project's Celery application in the package of its settings (from .celery "
            "import app), and set broker_url (CELERY_BROKER_URL). Without Celery, set "
            "MORANGO_CELERY['IN_PROCESS'] to True.",
            id="morango_celery.W002",
        )
    ]


@register("morango_celery")
def check_visibility_timeout(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if a message may be delivered again while its task may still be executed."""
    limit = current_app.conf.task_time_limit
    if not are_used() or not limit:
        return []
    options = current_app.conf.broker_transport_options or {}
    for parts in broker_urls():
        default = VISIBILITY_SECONDS.get(parts["transport"])
        visible = options.get("visibility_timeout", default)
        if default is not None and visible <= limit:
            return [
                Error(
                    f"Celery's visibility_timeout ({visible} s) is not above its task_time_limit ({limit} "
                    "s): the broker gives a batch to a second worker while the first still executes it.",
                    hint='Set broker_transport_options["visibility_timeout"] '
                    f"(CELERY_BROKER_TRANSPORT_OPTIONS) to twice the time limit: {round(2 * limit)} seconds.",
                    id="morango_celery.E007",
                )
            ]
    return []


@register("morango_celery")
def check_socket_timeouts(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if a Redis that doesn't answer would be waited for without end."""
    options = current_app.conf.broker_transport_options or {}
    missing = [name for name in SOCKET_TIMEOUTS if not options.get(name)]
    uses_redis = any(parts["transport"] in REDIS for parts in broker_urls())
    if not (are_used() and missing and uses_redis):
        return []
    return [
        Warning(
            f"Celery's broker_transport_options have no {' and no '.join(missing)}: a Redis that is there "
            "but doesn't answer holds up the request of a sync, and a worker, for ever.",
            hint="Add to broker_transport_options (CELERY_BROKER_TRANSPORT_OPTIONS): "
            + ", ".join(f'"{name}": 5' for name in missing)
            + ".",
            id="morango_celery.W009",
        )
    ]


@register("morango_celery")
def check_serializers(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Require that messages are JSON, and warn if workers accept more: a pickle may run any program."""
    if not are_used():
        return []
    conf = current_app.conf
    messages: list[CheckMessage] = []
    accepted = set(conf.accept_content or ())
    if conf.task_serializer not in JSON:
        messages.append(
            Error(
                f"Celery's task_serializer is {conf.task_serializer!r}, but this app's messages are JSON.",
                hint='Set task_serializer (CELERY_TASK_SERIALIZER) to "json"; tasks that need another '
                "can name it.",
                id="morango_celery.E008",
            )
        )
    if not accepted & JSON:
        messages.append(
            Error(
                f"Celery's accept_content is {sorted(accepted)}, so workers refuse the messages of this app.",
                hint='Set accept_content (CELERY_ACCEPT_CONTENT) to ["json"].',
                id="morango_celery.E008",
            )
        )
    elif accepted - JSON:
        messages.append(
            Warning(
                f"Celery's accept_content has {sorted(accepted - JSON)} besides JSON: whoever can write to "
                "the broker has workers read what may be more than data.",
                hint='Set accept_content (CELERY_ACCEPT_CONTENT) to ["json"], unless other tasks need more.',
                id="morango_celery.W005",
            )
        )
    return messages
