"""Lines of the log about the ends of runs."""

from __future__ import annotations

import logging

from morango_celery.log_context import bound, get_logger
from morango_celery.printable import printable

logger = get_logger("morango_celery.runs")


def log_end(run_id: int, progress_text: str, *, failed_records: int = 0, reason: str = "") -> None:
    """Log the end of a run; call it once the transaction is committed.

    :param progress_text: its state and the numbers of its records
    :param failed_records: number of its records in error
    :param reason: for a run that failed, the error; its first line is logged, since others may quote values
    """
    with bound(run=run_id, batch=None, attempt=None, model=None):
        if reason:
            logger.error("The run has ended, %s. %s", progress_text, printable(reason.split("\n", 1)[0]))
        else:
            level = logging.WARNING if failed_records else logging.INFO
            logger.log(level, "The run has ended, %s.", progress_text)
