"""Bootsteps and corrections that a worker gets as it starts. Importing this module connects them."""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init

from morango_celery.celery_compat import reuse_clients
from morango_celery.messaging.task_names import DESERIALIZE_BATCH, START_RUN
from morango_celery.worker.channels import SurvivesOutages
from morango_celery.worker.event_dispatcher import GathersEvents, bound_events
from morango_celery.worker.message_validation import DropMalformedMessages
from morango_celery.worker.periodic_recovery import PeriodicRecovery
from morango_celery.worker.plans import work_out_plans
from morango_celery.worker.pools import require_processes
from morango_celery.worker.priorities import FairPriorities
from morango_celery.worker.raw_messages import guard_unacknowledged
from morango_celery.worker.shutdown import SoftShutdown
from morango_celery.worker.task_context import note_limits


@celeryd_init.connect
def _add_steps(instance: Any, **kwargs: Any) -> None:
    bound_events(instance.app)
    reuse_clients()
    guard_unacknowledged()
    instance.app.steps["worker"].add(SoftShutdown)
    instance.app.steps["consumer"].update(
        (DropMalformedMessages, GathersEvents, SurvivesOutages, PeriodicRecovery, FairPriorities)
    )


@celeryd_after_setup.connect
def _require_processes(instance: Any, **kwargs: Any) -> None:
    note_limits(instance)
    require_processes(instance, (START_RUN, DESERIALIZE_BATCH))
    work_out_plans()
