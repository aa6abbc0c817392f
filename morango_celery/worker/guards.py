"""Guards around the bodies of tasks: their arguments are checked, and each error has its consequence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError, connection

from morango_celery.db.errors import is_transient
from morango_celery.errors import InvalidMessageError, SoftTimeLimitReached, TransientError
from morango_celery.messaging.run_end import handle_run_end
from morango_celery.models import Run
from morango_celery.printable import make_printable, printable
from morango_celery.runs import completion
from morango_celery.runs.limits import within
from morango_celery.worker.task_context import current_limits

MAX_ID = 2**63 - 1
_SHA256 = re.compile("[0-9a-f]{64}")


def checks_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a task, so that a message with other arguments than the task's is refused.

    :raises InvalidMessageError: names the argument; raised by the decorated function
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidMessageError(
                f"The message doesn't fit {function.__name__}: {printable(error)}."
            ) from None
        return function(*args, **kwargs)

    return checked


def require_id(value: object, name: str) -> int:
    """Return the argument `name` of a task if it may be a primary key of the ledger.

    :raises InvalidMessageError: it can't be one
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidMessageError(f"{name} is a whole number, not {printable(repr(value))}.")
    if abs(value) > MAX_ID:
        raise InvalidMessageError(f"{name} is larger than any in the ledger.")
    return value


def require_sha256(value: object) -> None:
    """Refuse a batch's hash that can't be one.

    :raises InvalidMessageError: it isn't 64 hex digits
    """
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise InvalidMessageError("ids_sha256 is a text of 64 hex digits.")


@contextmanager
def errors_end_run(run_id: int) -> Iterator[None]:
    """Let transient errors be retried; any other one ends the run, with its reason in the ledger.

    :raises TransientError: the task is to be retried
    :raises InvalidMessageError, Run.DoesNotExist: raised inside; they end nothing
    """
    try:
        with outages_are_retried():
            yield
    except (InvalidMessageError, TransientError, Run.DoesNotExist):
        raise
    except (SoftTimeLimitExceeded, SoftTimeLimitReached) as error:
        raise TransientError("The task took longer than the worker's time limit allows.") from error
    except MemoryError as error:  # Celery would end the whole worker for it
        raise TransientError("The worker has not enough memory.") from error
    except Exception as error:
        with outages_are_retried():
            failed = completion.fail(run_id, error)
        if failed is not None:
            handle_run_end(failed)
        make_printable(error)  # Celery logs it with its texts
        raise


@contextmanager
def outages_are_retried() -> Iterator[None]:
    """Turn errors of the database about itself into a retry, within the limits of the task.

    :raises TransientError: instead of such an error
    """
    try:
        # Django itself doesn't wrap errors of closing a server's cursor
        with within(current_limits()), connection.wrap_database_errors:
            yield
    except (DatabaseError, InterfaceError) as error:
        if is_transient(error):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()  # else this process's next task would fail as well
            make_printable(error)
            raise TransientError(f"The database is not available: {error}") from error
        raise
