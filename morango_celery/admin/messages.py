"""The admin's messages to operators about the results of their requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpRequest
from django.utils.html import format_html

from morango_celery.admin.links import link_to_run
from morango_celery.errors import MorangoCeleryError
from morango_celery.models import Run
from morango_celery.printable import printable
from morango_celery.runs.pausing import holder, in_force, in_words


@contextmanager
def errors_as_messages(request: HttpRequest) -> Iterator[None]:
    """Show errors that an operator can resolve as messages; Django reports all others."""
    try:
        yield
    except (MorangoCeleryError, OperationalError, InterfaceError) as error:
        messages.error(request, printable(str(error).strip()))


def message_started(admin: Any, request: HttpRequest, run: Run, what: str) -> None:
    """Show a link to a new run, and note in the admin's history who began it.

    :param what: it does, like "retries run 5"
    """
    what = printable(what)
    admin.log_addition(request, run, f"{what[:1].upper()}{what[1:]}.")
    level = messages.SUCCESS
    if run.has_ended:
        where = f"It is {run.state}: {run.saved:,} saved, {run.failed:,} failed."
    elif pause := holder(run, in_force()):
        level = messages.WARNING
        where = f"It waits. {in_words([pause])}"
    elif run.sent_at or connection.in_atomic_block:  # it is sent when the request's transaction is committed
        where = "Workers take it from here."
    else:
        level = messages.WARNING
        where = "It waits in the ledger, for the broker can't be reached; workers take it once that is back."
    messages.add_message(request, level, format_html("{} {}. {}", link_to_run(run.pk), what, where))
