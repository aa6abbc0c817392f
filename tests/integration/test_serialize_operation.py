"""Morango's serializing stage with our operation in it, beside Morango's own."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection
from morango.constants import transfer_stages, transfer_statuses
from morango.constants.capabilities import FSIC_V2_FORMAT
from morango.errors import MorangoSkipOperation
from morango.models import InstanceIDModel, Store, TransferSession
from morango.registry import session_middleware
from morango.sync.context import LocalSessionContext
from morango.sync.operations import SerializeOperation

from morango_celery import operations
from morango_celery.operations import StreamingSerializeOperation
from tests.support.driver_errors import driver_error
from tests.support.factories import SCHOOL_ID
from tests.support.transfers import new_transfer
from worker.school.models import PROFILE, Unit

OPERATIONS = [SerializeOperation, StreamingSerializeOperation]
THEIR_COUNTERS = '{"somebody": 7}'


@pytest.fixture(params=OPERATIONS, ids=["Morango's", "ours"])
def operation(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def edited(transactional_db: None) -> Unit:
    """Return a unit that isn't in the Store yet."""
    unit: Unit = Unit.objects.create(name="School", school_id=SCHOOL_ID)
    return unit


def context_of(*, is_server: bool, push: bool, capabilities: set[str] | None = None) -> LocalSessionContext:
    session = new_transfer(PROFILE, SCHOOL_ID, push=push)
    request = SimpleNamespace(data={"client_fsic": THEIR_COUNTERS}) if is_server else None
    return LocalSessionContext(
        request=request, transfer_session=session, capabilities=capabilities or {FSIC_V2_FORMAT}
    )


def noted(context: LocalSessionContext) -> tuple[str, str]:
    """Return the transfer session's counters of the server and of the client."""
    session = TransferSession.objects.get(pk=context.transfer_session.pk)
    return session.server_fsic, session.client_fsic


def our_counters() -> dict[str, dict[str, dict[str, int]]]:
    instance = InstanceIDModel.get_or_create_current_instance()[0]
    return {"sub": {SCHOOL_ID: {instance.id: instance.counter}}, "super": {}}


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_sender_serializes_and_notes_its_counters(operation: Any, edited: Unit, is_server: bool) -> None:
    context = context_of(is_server=is_server, push=not is_server)

    assert operation.handle(context) == transfer_statuses.COMPLETED

    assert Store.objects.get().id == edited.id
    server, client = noted(context)
    assert json.loads(server if is_server else client) == our_counters()
    assert (client if is_server else server) == (THEIR_COUNTERS if is_server else "{}")


@pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])
def test_receiver_only_notes_its_counters(operation: Any, edited: Unit, is_server: bool) -> None:
    context = context_of(is_server=is_server, push=is_server)

    assert operation.handle(context) == transfer_statuses.COMPLETED

    assert not Store.objects.exists()
    assert Unit.objects.get()._morango_dirty_bit
    server, client = noted(context)
    assert json.loads(server if is_server else client) == {"sub": {}, "super": {}}


def test_counters_come_in_the_form_that_both_sides_know(operation: Any, edited: Unit) -> None:
    context = context_of(is_server=False, push=True, capabilities={"none of note"})

    operation.handle(context)

    assert json.loads(noted(context)[1]) == our_counters()["sub"][SCHOOL_ID]


def test_morangos_setting_turns_the_operation_off(operation: Any, edited: Unit, settings: Any) -> None:
    settings.MORANGO_SERIALIZE_BEFORE_QUEUING = False

    assert operation.handle(context_of(is_server=False, push=True)) == transfer_statuses.COMPLETED

    assert not Store.objects.exists()


def test_session_without_a_filter_is_left_to_another_operation(operation: Any, edited: Unit) -> None:
    context = context_of(is_server=False, push=True)
    context.filter = None

    with pytest.raises(MorangoSkipOperation):
        operation.handle(context)


def test_morango_finds_the_operation_by_its_setting(edited: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(operations, "serialize_into_store", lambda profile, _: asked.append(profile))
    (stage,) = (stage for stage in session_middleware if stage.related_stage == transfer_stages.SERIALIZING)

    assert stage(context_of(is_server=False, push=True)) == transfer_statuses.COMPLETED

    assert asked == [PROFILE]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite never asks to try again")
def test_conflict_that_keeps_coming_is_left_to_the_controller(
    edited: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_conflict(*arguments: Any) -> None:
        raise OperationalError from driver_error("40001")

    monkeypatch.setattr(operations, "serialize_into_store", in_conflict)

    answer = StreamingSerializeOperation().handle(context_of(is_server=False, push=True))

    assert answer == transfer_statuses.PENDING


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no connection to lose")
def test_outage_is_raised(edited: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(operations, "serialize_into_store", lost)

    with pytest.raises(OperationalError):
        StreamingSerializeOperation().handle(context_of(is_server=False, push=True))
