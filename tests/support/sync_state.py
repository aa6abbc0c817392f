"""Transfer sessions of a server: their way to the stage, and their state in the database."""

from __future__ import annotations

from django.core.management import call_command
from morango.constants import transfer_stages, transfer_statuses
from morango.constants.capabilities import ASYNC_OPERATIONS
from morango.models import TransferSession
from morango.sync.context import LocalSessionContext
from morango.sync.controller import SessionController

from morango_celery.models import Run
from tests.support import factories
from tests.support.transfers import new_transfer
from worker.school.models import PROFILE

RECORDS = 120


def received_records() -> int:
    """Fill the Store as a sync leaves it, with so many dirty records that nothing is wrong with."""
    call_command("loaddata", "scopedefinitions", verbosity=0)
    return sum(factories.fill_store(RECORDS).values())


def dequeued_session(records: int, *, push: bool) -> TransferSession:
    """Make a session of `factories.SCHOOL_ID` that has everything behind it but deserializing."""
    return new_transfer(
        PROFILE,
        factories.SCHOOL_ID,
        push=push,
        records_transferred=records,
        records_total=records,
        transfer_stage=transfer_stages.DEQUEUING,
        transfer_stage_status=transfer_statuses.COMPLETED,
    )


def controller_of(transfer_session: TransferSession, *, is_server: bool) -> SessionController:
    context = LocalSessionContext(
        request=object() if is_server else None,
        transfer_session=transfer_session,
        capabilities={ASYNC_OPERATIONS},
    )
    return SessionController.build(context=context)


def proceed(transfer_session: TransferSession, stage: str = transfer_stages.DESERIALIZING) -> str:
    """Return the session's state after the controller of a server was asked by a client that polls."""
    fresh = TransferSession.objects.get(pk=transfer_session.pk)
    status: str = controller_of(fresh, is_server=True).proceed_to(stage)
    return status


def the_run() -> Run:
    return Run.objects.get()


def session() -> TransferSession:
    return TransferSession.objects.get()


def is_at(stage: str, status: str) -> bool:
    return bool(TransferSession.objects.filter(transfer_stage=stage, transfer_stage_status=status).exists())


def waits_for_its_run() -> bool:
    return Run.objects.exists() and is_at(transfer_stages.DESERIALIZING, transfer_statuses.STARTED)
