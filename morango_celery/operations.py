"""The doors from Morango: its deserializing stage becomes a run, its serializing stage a stream.

Prepend ``"morango_celery.operations:DeserializeOperation"`` to ``MORANGO_DESERIALIZE_OPERATIONS``, and
``"morango_celery.operations:StreamingSerializeOperation"`` to ``MORANGO_SERIALIZE_OPERATIONS``.
"""

from __future__ import annotations

import json
import time
from typing import Any

from django.db import OperationalError, connection, transaction
from morango.constants import transfer_statuses
from morango.constants.capabilities import ASYNC_OPERATIONS, FSIC_V2_FORMAT
from morango.models import DatabaseMaxCounter
from morango.sync.operations import LocalOperation

from morango_celery.api import runs_in_process
from morango_celery.conf import DETACH, require_valid, settings
from morango_celery.models import Run
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import create_run
from morango_celery.serialization import serialize_into_store
from morango_celery.tasks import CeleryDispatch
from morango_celery.upstream import SETTINGS, is_isolation_error

COMPLETED: str = transfer_statuses.COMPLETED
PENDING: str = transfer_statuses.PENDING
STARTED: str = transfer_statuses.STARTED

LOOK_EVERY_SECONDS = 0.025
"""While a request waits for its run. A look is one statement, by primary key."""


class DeserializeOperation(LocalOperation):
    """Takes over the deserializing stage of a receiver; leaves producers to Morango.

    What it answers depends on who asks, because Morango's controllers differ in how they wait:

    - mode ``detach``: COMPLETED at once; the run goes on by itself.
    - a server whose client polls over HTTP is never asked again: STARTED, and the worker that ends
      the run writes the outcome to the transfer session.
    - a loop in this process never sees what another process writes: PENDING, until it asks again
      and finds that the run has ended.
    - without Celery (SQLite, or ``IN_PROCESS``): the run is carried out here, then COMPLETED.

    A client pauses before it asks again. So whoever waits for the run is answered a moment later, and
    COMPLETED, if it ends within REQUEST_WAIT_SECONDS.
    """

    def handle(self, context: Any) -> str:
        """
        :raises RunFailedError: the run could not be completed
        Twice: safe; a transfer session has one run.
        """
        self._assert(context.sync_session is not None)
        self._assert(context.transfer_session is not None)
        self._assert(context.filter is not None)
        self._assert(context.is_receiver)

        if not SETTINGS.MORANGO_DESERIALIZE_AFTER_DEQUEUING:
            return COMPLETED
        if not context.transfer_session.records_transferred:
            return COMPLETED
        require_valid()
        if runs_in_process():
            return self._carry_out(context)
        is_polled = context.is_server and ASYNC_OPERATIONS in context.capabilities
        run = self._run_of(context, told_by_worker=is_polled and settings.MODE != DETACH)
        run.require_success()
        if run.is_finished or settings.MODE == DETACH:
            return COMPLETED
        return STARTED if is_polled else PENDING

    @staticmethod
    def _carry_out(context: Any) -> str:
        run = create_run(context.sync_session.profile, context.filter, session_notified=True, in_process=True)
        try:
            run_in_process(run)
        except OperationalError as error:
            if is_isolation_error(error):
                return PENDING
            raise
        return COMPLETED

    @classmethod
    def _run_of(cls, context: Any, *, told_by_worker: bool) -> Run:
        """Return the transfer session's run; a new one is sent to the workers once it is committed.

        No worker tells the session while this request may still do so itself.
        """
        waits = cls._may_end_soon()
        run, is_new = Run.objects.get_or_create(
            transfer_session_id=context.transfer_session.id,
            defaults={
                "profile": context.sync_session.profile,
                "filter": str(context.filter),
                "session_notified": waits or not told_by_worker,
            },
        )
        if is_new and waits:
            if CeleryDispatch().start(run):
                cls._wait_for(run)
        elif is_new:
            transaction.on_commit(lambda: CeleryDispatch().start(run))
        if told_by_worker and run.session_notified and not run.is_finished:
            # This request has waited in vain, another one looked for the outcome by itself, or the mode was
            # another one. A run that has ended meanwhile left its session to us
            left = Run.objects.filter(pk=run.pk, state__in=Run.UNFINISHED)
            if not left.update(session_notified=False):
                run.refresh_from_db()
        return run

    @staticmethod
    def _may_end_soon() -> bool:
        """Return True if a run that is sent now may end while its request waits: workers have no other.

        Cost: one statement.
        """
        if settings.MODE == DETACH or not settings.REQUEST_WAIT_SECONDS or connection.in_atomic_block:
            return False
        return not Run.objects.filter(state__in=Run.UNFINISHED, in_process=False).exists()

    @staticmethod
    def _wait_for(run: Run) -> None:
        """Look for the end of a run, for REQUEST_WAIT_SECONDS at most."""
        deadline = time.monotonic() + settings.REQUEST_WAIT_SECONDS
        while not run.is_finished and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_SECONDS, left))
            run.refresh_from_db(fields=["state", "error"])


class StreamingSerializeOperation(LocalOperation):
    """Takes over the serializing stage, for servers and clients: as Morango does it, in flat memory."""

    def handle(self, context: Any) -> str:
        """Bring local edits into the Store if this side sends, and say what it knows of the filter's data.

        Answers PENDING, and so is asked again, when PostgreSQL asks to try again and keeps asking.
        Twice: safe; there is nothing left to serialize then.
        """
        self._assert(context.sync_session is not None)
        self._assert(context.filter is not None)

        if context.is_producer and SETTINGS.MORANGO_SERIALIZE_BEFORE_QUEUING:
            try:
                serialize_into_store(context.sync_session.profile, context.filter)
            except OperationalError as error:
                if is_isolation_error(error):
                    return PENDING
                raise
        self._note_counters(context)
        return COMPLETED

    @staticmethod
    def _note_counters(context: Any) -> None:
        """The counters by which both sides find out what the other lacks: ours, and a client's, if it sent
        its own."""
        counters = DatabaseMaxCounter.calculate_filter_specific_instance_counters(
            context.filter,
            is_producer=context.is_producer,
            v2_format=FSIC_V2_FORMAT in context.capabilities,
        )
        session = context.transfer_session
        if context.is_server:
            session.server_fsic = json.dumps(counters)
            session.client_fsic = context.request.data.get("client_fsic", "{}")
            session.save(update_fields=["server_fsic", "client_fsic"])
        else:
            session.client_fsic = json.dumps(counters)
            session.save(update_fields=["client_fsic"])
