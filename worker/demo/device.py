"""Work of the device, as Morango's documentation describes a client's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management import call_command
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Count
from morango.models import Buffer, Certificate, Filter, TransferSession
from morango.sync.controller import MorangoProfileController
from morango.sync.syncsession import NetworkSyncConnection, PushClient

from worker.demo import events
from worker.demo.school import CHUNK_RECORDS, EARLY_RECORDS, EARLY_UNITS, School, create
from worker.demo.spoiling import orphan, spoil
from worker.school.models import PROFILE, Learner, Lesson, Unit

SCOPE = "school-full"
DELETED_RECORDS = 6
"""A learner with four attempts, and a lesson."""

EDITED_RECORDS = EARLY_UNITS - 1

SLICE_RECORDS = 5 * CHUNK_RECORDS
"""Number of records that Morango serializes at once, which its memory grows with."""

FEWEST_CHUNK, MOST_CHUNK = 500, 10_000
PUSHES = 4
"""Size of a chunk. Morango's client pauses for up to a second after each one, so chunks are large."""


def connect(url: str, records: int) -> NetworkSyncConnection:
    """Connect to the server.

    :param records: number of records that will be pushed
    """
    chunk = min(max(records // PUSHES, FEWEST_CHUNK), MOST_CHUNK)
    # Level 1: on one machine, compressing well costs more than it saves.
    return NetworkSyncConnection(url, compresslevel=1, chunk_size=chunk)


def prepare_database() -> None:
    connection_created.connect(_hurry)
    call_command("migrate", verbosity=0, interactive=False)
    call_command("loaddata", "scopedefinitions", verbosity=0)


def _hurry(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Let the device's database skip waiting for the disk: it doesn't outlive the demo."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = OFF")


def fetch_certificate(
    connection: NetworkSyncConnection, school_id: str, account: str, password: str
) -> tuple[Certificate, Certificate]:
    """Ask the server to sign a certificate for this device.

    :returns: this device's certificate and the server's
    """
    (theirs,) = connection.get_remote_certificates(school_id, SCOPE)
    own = connection.certificate_signing_request(
        theirs, SCOPE, {"school_id": school_id}, userargs=account, password=password
    )
    return own, theirs


def send_plain(
    connection: NetworkSyncConnection, own: Certificate, theirs: Certificate, school_id: str, records: int
) -> None:
    """Push a number of valid records in one sync."""
    school = School(school_id, records - EARLY_RECORDS)
    for _ in create(school.early_records()):
        pass
    create_and_serialize(school)
    push(connection, own, theirs, school_id)
    events.emit(events.RESULT, broken=[], orphans=[])


def send(
    connection: NetworkSyncConnection, own: Certificate, theirs: Certificate, school_id: str, records: int
) -> None:
    """Push in two syncs: the second one edits and deletes records of the first one.

    :param records: number of records that the second sync pushes
    """
    school = School(school_id, records - EDITED_RECORDS - DELETED_RECORDS)
    for _ in create(school.early_records()):
        pass
    events.emit(events.STEP, text="Device: a first sync, of a few records, to edit and delete later")
    push(connection, own, theirs, school_id, quiet=True)

    create_and_serialize(school)
    edit_and_delete(school)
    serialize(school)
    broken = spoil(school)
    orphans = [orphan(school)]
    push(connection, own, theirs, school_id)
    events.emit(
        events.RESULT,
        broken=[asdict(record) for record in broken],
        orphans=[asdict(record) for record in orphans],
    )


def create_and_serialize(school: School) -> None:
    events.emit(events.STEP, text="Device: creating records; Morango serializes them", total=school.size)
    serialized = 0
    for written in create(school.records()):
        if written - serialized >= SLICE_RECORDS:
            serialize(school)
            serialized = written
        events.emit(events.PROGRESS, done=written)
    serialize(school)


def serialize(school: School) -> None:
    MorangoProfileController(PROFILE).serialize_into_store(filter=Filter(school.id))


def edit_and_delete(school: School) -> None:
    """Change `EDITED_RECORDS` records that the server has, and delete `DELETED_RECORDS`."""
    for number in range(1, EARLY_UNITS):
        unit = Unit.objects.get(id=school.unit(number).id)
        unit.name += ", renamed"
        unit.save()
    Learner.objects.get(id=school.learner(0).id).delete()
    Lesson.objects.get(id=school.lesson(0).id).delete()


def push(
    connection: NetworkSyncConnection,
    own: Certificate,
    theirs: Certificate,
    school_id: str,
    *,
    quiet: bool = False,
) -> None:
    """Push records that the server doesn't have, by Morango's client, until the server reports completion.

    :param quiet: True reports no steps
    """

    def tell(event: str, **data: Any) -> None:
        if not quiet:
            events.emit(event, **data)

    def tell_progress(transfer_session: TransferSession) -> None:
        tell(events.PROGRESS, done=transfer_session.records_transferred)

    session = connection.create_sync_session(own, theirs)
    client: PushClient = session.get_push_client()
    tell(events.STEP, text="Device: Morango queues what the server does not have")
    client.initialize(Filter(school_id))
    transfer = client.current_transfer_session
    tell(events.SENT, transfer_session_id=transfer.id, counts=dict(_queued(transfer)))
    tell(events.STEP, text="Device: Morango pushes it over HTTP", total=transfer.records_total)
    client.signals.transferring.in_progress.connect(tell_progress)
    client.run()
    tell(events.SYNCED)
    client.finalize()
    connection.close_sync_session(session.sync_session)


def _queued(transfer: TransferSession) -> Iterator[tuple[str, int]]:
    queued = Buffer.objects.filter(transfer_session=transfer).values("model_name").annotate(count=Count("pk"))
    for row in queued.order_by():
        yield row["model_name"], row["count"]
