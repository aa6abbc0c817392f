"""What the tests of syncs ask the server's database."""

from __future__ import annotations

from morango.constants import transfer_stages, transfer_statuses
from morango.models import TransferSession

from morango_celery.models import Run


def the_run() -> Run:
    return Run.objects.get()


def session() -> TransferSession:
    return TransferSession.objects.get()


def is_at(stage: str, status: str) -> bool:
    return bool(TransferSession.objects.filter(transfer_stage=stage, transfer_stage_status=status).exists())


def waits_for_its_run() -> bool:
    return Run.objects.exists() and is_at(transfer_stages.DESERIALIZING, transfer_statuses.STARTED)
