"""Bootsteps and corrections that a worker gets as it starts. Importing this module connects them."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import celeryd_after_setup, celeryd_init

from morango_celery.celery_compat import reuse_clients
from morango_celery.celery_names import missing_names
from morango_celery.messaging.rabbitmq import bound_connections
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

logger = logging.getLogger(__name__)


@celeryd_init.connect
def _add_steps(instance: Any, **kwargs: Any) -> None:
    bound_events(instance.app)
    reuse_clients()
    bound_connections()
    guard_unacknowledged()
    instance.app.steps["worker"].add(SoftShutdown)
    instance.app.steps["consumer"].update(
        (DropMalformedMessages, GathersEvents, SurvivesOutages, PeriodicRecovery, FairPriorities)
    )


@celeryd_after_setup.connect
def _require_processes(instance: Any, **kwargs: Any) -> None:
    note_limits(instance)
    require_processes(instance, (START_RUN, DESERIALIZE_BATCH))
    tell_of_missing_names()
    work_out_plans()


def tell_of_missing_names() -> None:
    """Log each private name of Celery's or kombu's that is not there, and what stops working without it."""
    for missing in missing_names():
        logger.error("%s", missing)
