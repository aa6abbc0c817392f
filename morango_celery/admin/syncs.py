"""Syncs of runs, for readers: facility, device, direction and transfer session."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from morango.models.core import TransferSession

from morango_celery.models import Run

SHOWN_DIGITS = 8
"""Number of an id's digits that a list shows; the whole is in its title."""

NAMES = ("device_name", "hostname")
"""Keys of an instance's JSON that name its device, the best first."""

_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Sync:
    """The sync that a run belongs to."""

    device: str
    """Name of the other device, or the beginning of its id; empty if nothing is known of it."""
    direction: str
    """Direction of the records: "pushed by" the device, or "pulled from" it."""
    device_id: str


def syncs_of(runs: Iterable[Run]) -> dict[int, Sync]:
    """Return the syncs of runs by the runs' primary keys; none of those whose session is gone.

    Cost: one query for any number of runs.
    """
    by_session = {run.transfer_session_id: run.pk for run in runs if run.transfer_session_id}
    if not by_session:
        return {}
    sessions = TransferSession.objects.filter(pk__in=by_session).select_related("sync_session")
    needed = ("client_instance_id", "client_instance_json", "server_instance_id", "server_instance_json")
    only = ("push", *(f"sync_session__{name}" for name in ("is_server", *needed)))
    return {by_session[session.pk]: _sync(session) for session in sessions.only(*only)}


def shortened(text: str) -> str:
    """Return a text with the beginnings of the ids in it."""
    return _ID.sub(lambda found: f"{found[0][:SHOWN_DIGITS]}…", text)


def filter_in_short(run: Run) -> str:
    """Return the first prefix of a run's filter, and the number of the others; the whole is in its title."""
    if run.filter is None:
        return "all"
    first, *others = run.filter.split() or [""]
    more = f" and {len(others)} more" if others else ""
    return format_html('<span title="{}">{}{}</span>', run.filter, shortened(first), more)


def sync_in_short(run: Run, sync: Sync | None) -> str:
    """Return the direction, the device and the session of a run's sync; empty for a run without a sync."""
    session = run.transfer_session_id
    if session is None:
        return ""
    session_text = format_html('session <span title="{}">{}</span>', session, shortened(str(session)))
    if sync is None:
        return session_text
    device = format_html('<span title="{}">{}</span>', sync.device_id, sync.device or "an unknown device")
    return format_html("{} {}<br>{}", sync.direction, device, session_text)


def _sync(session: Any) -> Sync:
    sync_session = session.sync_session
    other = "client" if sync_session.is_server else "server"
    device_id = getattr(sync_session, f"{other}_instance_id")
    device_id = "" if device_id is None else device_id.hex
    return Sync(
        _name(getattr(sync_session, f"{other}_instance_json")) or shortened(device_id),
        "pushed by" if session.push else "pulled from",
        device_id,
    )


def _name(instance: str) -> str:
    """Return the name of a device from what it has said of itself, which may be anything."""
    try:
        said = json.loads(instance)
    except ValueError:
        return ""
    if not isinstance(said, dict):
        return ""
    names = (said.get(key) for key in NAMES)
    return next((name[:100] for name in names if isinstance(name, str) and name), "")
