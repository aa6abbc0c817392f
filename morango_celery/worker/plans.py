"""Plans for all syncable models, worked out before the pool forks.

The processes of the pool have them from their first batch on: those that a worker starts with, and each that
takes the place of a lost one. To work them out takes a process a tenth of a second with Kolibri's models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from morango_celery.deserialization.rows import row_plan
from morango_celery.runs.plan import steps
from morango_celery.upstream import profiles, registered_models

logger = logging.getLogger(__name__)


def work_out_plans() -> None:
    """Work out the plans of all models. No database is connected to."""
    for profile in profiles():
        with _errors_logged(
            f"{profile}: the order of its models can't be worked out, so its runs will fail."
        ):
            steps(profile)
        for model in registered_models(profile):
            with _errors_logged(
                f"{model._meta.label}: its plan can't be worked out, so its records will fail."
            ):
                row_plan(model)


@contextmanager
def _errors_logged(text: str) -> Iterator[None]:
    """Log an error with `text`, and go on: others have plans, and whoever needs this one gets the error."""
    try:
        yield
    except Exception:  # a host's class may raise anything
        logger.exception("%s", text)
