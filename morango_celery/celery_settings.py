"""Celery's settings for these tasks, to be imported into Django's.

``from morango_celery.celery_settings import *`` sets them under the namespace ``CELERY``. Settings that each
project decides for itself, such as CELERY_BROKER_URL, are not here.
"""

import socket as _socket

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# With Celery's default, a worker ends after 100 tries: Redis may be away for about 50 minutes.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# Without it, a worker ends when Redis is full and refuses even that a message is acknowledged.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Redis hands a message out again after this long without an acknowledgement; must exceed
    # the time limit of a task, or it runs twice at once.
    "visibility_timeout": 600,
    # Seconds between two looks for such messages, in the worker's event loop, which a Redis that doesn't
    # answer holds up.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # Without these two, a Redis that is there but doesn't answer holds up a sync's request, and a worker, for
    # ever. They don't limit a worker's wait for messages, which happens in its event loop.
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    # The same for RabbitMQ, which would otherwise lose messages unnoticed: each is confirmed, which waits for
    # `socket_timeout` at most. And a process that can't connect gives up, instead of trying for ever.
    "confirm_publish": True,
    "max_retries": 1,
    "interval_start": 0.1,
    # A worker drops a connection on which an answer is overdue by this long, and connects again.
    "health_check_interval": 5,
    # By these, a listener such as Flower notices that the other end is gone.
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(_socket, name): value
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(_socket, name)
    },
}
# The same for a project that keeps results in Redis; Celery's defaults are two minutes, and no limit.
CELERY_REDIS_SOCKET_TIMEOUT = 5
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 5
# RabbitMQ knows priorities only in queues that are declared with them. None for quorum queues.
CELERY_TASK_QUEUE_MAX_PRIORITY = 9
CELERY_TASK_TIME_LIMIT = 300
CELERY_TASK_SOFT_TIME_LIMIT = 270
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TRACK_STARTED = True
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# With late acknowledgement, a worker then takes no message for which it has no process. Messages that a lost
# worker had only reserved would wait for the visibility timeout. CELERY_WORKER_DISABLE_PREFETCH adds nothing.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = True
# A task still running this long after SIGTERM is requeued; under `celery worker` only with
# REMAP_SIGTERM=SIGQUIT. A worker ends sooner if its tasks do, and at the latest 20 seconds later: the
# supervisor's grace must be longer than both together.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 60
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# A database connection serves this many tasks; a new one for each task costs a quarter of the throughput.
CELERY_DB_REUSE_MAX = 500
