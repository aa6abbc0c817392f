"""Operations for Morango: its deserializing stage becomes a run, its serializing stage a stream.

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
from morango_celery.comparison.shadow import note
from morango_celery.conf import COMPARE, DETACH, require_valid, settings
from morango_celery.errors import PausedError
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.pausing import require_not_paused
from morango_celery.runs.producer import create_run
from morango_celery.serialization import serialize_into_store
from morango_celery.upstream import SETTINGS, is_isolation_error

COMPLETED: str = transfer_statuses.COMPLETED
PENDING: str = transfer_statuses.PENDING
STARTED: str = transfer_statuses.STARTED

LOOK_EVERY_SECONDS = 0.025
"""Pause between two looks of a request that waits for its run. A look is one statement, by primary key."""


class DeserializeOperation(LocalOperation):
    """An operation that turns a receiver's deserializing stage into a run; senders are left to Morango.

    The answer depends on the caller, because Morango's controllers differ in how they wait:

    - mode ``compare``: none; Morango's own operation is asked next, and some syncs are compared later.
    - mode ``detach``: COMPLETED at once; the run goes on by itself.
    - a server with a client that polls over HTTP: STARTED. Morango doesn't ask again there, so the worker
      that ends the run writes the outcome to the transfer session.
    - a loop in this process: PENDING, until the loop asks again and the run has ended. Such a loop never sees
      changes that another process makes to the session.
    - without Celery (SQLite, or ``IN_PROCESS``): the run is carried out here, then COMPLETED.

    While a pause holds the run, the answer is STARTED or PENDING, and the client asks again. In mode
    ``detach`` it is COMPLETED at once, as ever.

    A client pauses before it asks again. So the answer is put off for up to REQUEST_WAIT_SECONDS, and is
    COMPLETED if the run ends meanwhile.
    """

    def handle(self, context: Any) -> str:
        """Start the transfer session's run, or look how far it is.

        :returns: a transfer status: COMPLETED, STARTED or PENDING
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
        if settings.MODE == COMPARE and not runs_in_process():
            note(context.transfer_session.id, context.sync_session.profile, context.filter)
        self._assert(settings.MODE != COMPARE, "Morango's own operation has the stage in mode compare")
        if runs_in_process():
            return self._carry_out(context)
        is_polled = context.is_server and ASYNC_OPERATIONS in context.capabilities
        run = self._run_of(context, told_by_worker=is_polled and settings.MODE != DETACH)
        run.require_success()
        if run.has_ended or settings.MODE == DETACH:
            return COMPLETED
        return STARTED if is_polled else PENDING

    @staticmethod
    def _carry_out(context: Any) -> str:
        profile = context.sync_session.profile
        try:
            require_not_paused(profile, context.filter)
        except PausedError:
            return PENDING
        run = create_run(profile, context.filter, session_notified=True, in_process=True)
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

        No worker notifies the session while this request may still do so itself.
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
        if told_by_worker and run.session_notified and not run.has_ended:
            # This request has waited in vain, or another one, perhaps in another mode, needed no notice. From
            # here on the worker notifies the session; if the run has ended meanwhile, this request answers
            left = Run.objects.filter(pk=run.pk).exclude(state__in=Run.ENDED)
            if not left.update(session_notified=False):
                run.refresh_from_db()
        return run

    @staticmethod
    def _may_end_soon() -> bool:
        """Return True if a run that is sent now may end while its request waits: workers have no other run.

        Cost: one statement.
        """
        if settings.MODE == DETACH or not settings.REQUEST_WAIT_SECONDS or connection.in_atomic_block:
            return False
        return not Run.objects.filter(state__in=Run.UNFINISHED, in_process=False).exists()

    @staticmethod
    def _wait_for(run: Run) -> None:
        """Wait for the end of a run, for REQUEST_WAIT_SECONDS at most."""
        deadline = time.monotonic() + settings.REQUEST_WAIT_SECONDS
        while not run.has_ended and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_SECONDS, left))
            run.refresh_from_db(fields=["state", "error", "paused"])
            if run.paused:
                break


class StreamingSerializeOperation(LocalOperation):
    """An operation for the serializing stage of servers and clients: Morango's results, in flat memory."""

    def handle(self, context: Any) -> str:
        """Bring local edits into the Store if this side sends, and note its counters for the filter.

        :returns: COMPLETED; or PENDING, to be called again, after repeated serialization failures
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
        """Write the counters to the transfer session: this side's, and those that a client has sent.

        Both sides compare them to find the records that the other one lacks.
        """
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
