"""Names of the Celery tasks: messages of older versions have them too, so they stay."""

from __future__ import annotations

START_RUN = "morango_celery.start_run"
DESERIALIZE_BATCH = "morango_celery.deserialize_batch"
NOTIFY_SESSION = "morango_celery.notify_session"
RECOVER_RUNS = "morango_celery.recover_runs"
COMPARE_SYNC = "morango_celery.compare_sync"
