"""A device's whole sync with a real Kolibri server, with the plug-in and without.

The server is on PostgreSQL, the device on SQLite, both as the scenarios of ``tests.kolibri.plug_in`` have
them. ``python -m bench.over_http`` makes a server; nothing here runs in Kolibri's own processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from redis import Redis

from bench.measurement import Measurement, Order
from bench.processes import peak_rss_mb
from bench.relay import Relay, relay_to
from tests.kolibri import environment
from tests.kolibri.plug_in import people
from tests.kolibri.plug_in.installation import (
    ACCOUNT,
    ENVIRONMENT,
    PASSWORD,
    PLUG_IN,
    Installation,
    new_installation,
)
from tests.kolibri.plug_in.stage import ended

PLUGGED_IN, STOCK = "plugged-in", "stock"
SYNCS = 3
"""After one that isn't counted: server and worker were just started."""


def found() -> None:
    """Make a server with a class of learners."""
    environment.main(ENVIRONMENT, as_shipped=True)
    server = _server()
    account = ("--superusername", ACCOUNT, "--superuserpassword", PASSWORD)
    facility = ("--facility", "School", "--preset", "formal", "--language_id", "en")
    server.manage("provisiondevice", *facility, "--noinput", *account)
    server.act(people.found.__name__)


def join() -> None:
    """Make a device that was synced with the server."""
    server = _server()
    device = new_installation(server.home / "device")
    with server.server() as (url, _):
        ended(device.sync_with(url))


def measure(order: Order) -> Measurement:
    """Push so many records several times, each time others, and take the median from request to answer."""
    server = _server()
    device = Installation(server.home / "device")
    with _serving(server, plugged_in=order.implementation == PLUGGED_IN) as (relay, pid):
        seconds = [_push(device, relay, order.records) for _ in range(1 + SYNCS)]
        peak_mb = peak_rss_mb(pid)
    if order.implementation == PLUGGED_IN:
        outcomes = [(run["state"], run["in_process"], run["records"]["saved"]) for run in server.runs()]
        assert outcomes == [("completed", False, order.records)] * (1 + SYNCS), outcomes
    return Measurement(median(seconds[1:]), order.records, peak_mb, 0, 0, 0)


def _server() -> Installation:
    return Installation(Path(os.environ["KOLIBRI_HOME"]), os.environ["DATABASE_URL"])


@contextmanager
def _serving(server: Installation, *, plugged_in: bool) -> Iterator[tuple[Relay, int]]:
    """Start the server, and a worker if it has the plug-in; a relay to it, and the server's process id."""
    if not plugged_in:
        with server.server() as (url, process), relay_to(url) as relay:
            yield relay, process.pid
        return
    broker = os.environ["REDIS_URL"]
    with Redis.from_url(broker) as client:
        client.flushdb()
    server = Installation(server.home, server.database_url, {"KOLIBRI_CELERY_BROKER_URL": broker})
    server.command("kolibri", "plugin", "enable", PLUG_IN)
    with server.server() as (url, process), server.worker(), relay_to(url) as relay:
        yield relay, process.pid


def _push(device: Installation, relay: Relay, records: int) -> float:
    device.act(people.practised.__name__, str(records))
    relay.forget()
    ended(device.sync_with(relay.url, "--no-pull"))
    return relay.seconds


if __name__ == "__main__":
    found()
