"""The other instance of a sync: enrols and removes a person in its own database.

``python -m tests.side_effects.device URL PLACE [enrol|leave|push|pull]...``, where PLACE is the id of the
server's root certificate. Reads DATABASE_URL, and from DEVICE_PASSWORD the password of the server's account.
Prints the names of the seats that it has in the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import django

ACCOUNT = "head"
SCOPE = "side-effects"


def define_scope() -> None:
    """Let certificates be signed for all that is synced here; to be done on both sides."""
    from morango.models import ScopeDefinition

    from tests.side_effects.models import PROFILE

    ScopeDefinition.objects.update_or_create(
        id=SCOPE,
        defaults={
            "profile": PROFILE,
            "version": 1,
            "primary_scope_param_key": "place_id",
            "description": "everything",
            "read_filter_template": "",
            "write_filter_template": "",
            "read_write_filter_template": "${place_id}",
        },
    )


def main(url: str, place: str, *commands: str) -> None:
    django.setup()
    from django.core.management import call_command
    from morango.sync.syncsession import NetworkSyncConnection

    from tests.side_effects.models import Seat
    from worker.demo.device import prepare_database

    prepare_database()
    call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)
    define_scope()
    connection = NetworkSyncConnection(url)
    own, theirs = fetch_certificate(connection, place)
    for command in commands:
        if command in COMMANDS:
            COMMANDS[command](Seat, place)
        else:
            sync(connection, own, theirs, place, push=command == "push")
    print(json.dumps(sorted(Seat.objects.values_list("name", flat=True))))


def enrol(seats: Any, place: str) -> None:
    """Enrol the person in a course, and in a team of it."""
    for team in ("", "red"):
        seats.objects.create(name=f"maths {team} ada", course="maths", team=team, person="ada", place=place)


def leave(seats: Any, place: str) -> None:
    """Leave the course: a receiver deletes the other seat, here as on the server."""
    seats.objects.get(team="").delete()


def fetch_certificate(connection: Any, place: str) -> tuple[Any, Any]:
    """Return ours, signed by the server, and the server's."""
    (theirs,) = connection.get_remote_certificates(place, SCOPE)
    password = os.environ["DEVICE_PASSWORD"]
    own = connection.certificate_signing_request(
        theirs, SCOPE, {"place_id": place}, userargs=ACCOUNT, password=password
    )
    return own, theirs


def sync(connection: Any, own: Any, theirs: Any, place: str, *, push: bool) -> None:
    from morango.models import Filter

    session = connection.create_sync_session(own, theirs)
    client = session.get_push_client() if push else session.get_pull_client()
    client.initialize(Filter(place))
    client.run()
    client.finalize()
    connection.close_sync_session(session.sync_session)


COMMANDS: Mapping[str, Callable[[Any, str], None]] = {
    "enrol": enrol,
    "leave": leave,
    "look": lambda seats, place: None,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
