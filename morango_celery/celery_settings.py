"""Celery's settings as these tasks want them, for Django's: ``from morango_celery.celery_settings import *``.

Under the namespace ``CELERY``. What a project decides for itself, such as CELERY_BROKER_URL, is not here.
"""

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Without it, a worker ends when Redis is full and refuses even that a message is acknowledged.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Redis hands a message out again after this long without an acknowledgement; must exceed
    # the time limit of a task, or it runs twice at once.
    "visibility_timeout": 600,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
}
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
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_SEND_TASK_EVENTS = True
# A task still running this long after SIGTERM goes back to the queue; under `celery worker` only with
# REMAP_SIGTERM=SIGQUIT. Celery sleeps for all of it if any task runs at the time of the signal, so the
# supervisor's grace must be longer.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 60
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# A database connection serves this many tasks; one a task costs a quarter of the throughput.
CELERY_DB_REUSE_MAX = 500
