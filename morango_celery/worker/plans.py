"""Plans for all syncable models, worked out before the pool forks.

The processes of the pool have them from their first batch on: those that a worker starts with, and each that
takes the place of a lost one. To work them out takes a process a tenth of a second with Kolibri's models.
"""

from __future__ import annotations

import logging

from morango_celery.deserialization.rows import row_plan
from morango_celery.runs.plan import steps
from morango_celery.upstream import profiles, registered_models

logger = logging.getLogger(__name__)


def work_out_plans() -> None:
    """Work out the plans of all models. No database is connected to."""
    for profile in profiles():
        steps(profile)
        for model in registered_models(profile):
            try:
                row_plan(model)
            except Exception:  # a host's class may raise anything; others have plans
                label = model._meta.label
                logger.exception("%s: its plan can't be worked out, so its records will fail.", label)
