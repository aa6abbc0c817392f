"""Scenarios of a server with the plug-in, and their required results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.kolibri.plug_in import people
from tests.kolibri.plug_in.installation import PLUG_IN, SLOW_SECONDS, WORKER, Installation
from tests.kolibri.plug_in.outcome import NOTIFICATIONS, user
from tests.kolibri.plug_in.stage import EXHAUSTED, PASSWORDS, Stage, ended, pushing, status_of, wait_for
from tests.support.processes import LoggedProcess
from worker import services


@dataclass(frozen=True)
class Scenario:
    about: str
    engine: str
    play: Callable[[Stage], str]
    """Returns what to print; raises AssertionError."""

    @property
    def name(self) -> str:
        return self.play.__name__.replace("_", "-")


def workers(stage: Stage) -> str:
    """Let a worker deserialize while the sync waits; then sync once more, and check the device's new
    records."""
    with services.start_redis() as broker:
        cache = broker.removeprefix("redis://").removesuffix("/0")
        server = stage.plugged_in(
            KOLIBRI_CELERY_BROKER_URL=broker,
            KOLIBRI_CACHE_BACKEND="redis",  # with the redis-py that Celery needs, not the one Kolibri brings
            KOLIBRI_CACHE_LOCATION=cache,
            KOLIBRI_CACHE_REDIS_DB="1",
        )
        # Of models whose save() has queries it informs; Kolibri's only look
        assert not re.search("ERRORS:|WARNINGS:", server.manage("check"))
        device = stage.device
        with server.server() as (url, process), server.worker() as worker:
            ended(device.sync_with(url, "--no-pull"))
            found = stage.compare(server)
            assert_carried_out_by(worker, process)
            assert_run(server, in_process=False)

            ended(device.sync_with(url))
            assert len(server.runs()) == 1, "nothing was sent, so there was nothing to deserialize"
            on_server, on_device = (user(one.snapshot()["tables"], "holder") for one in (server, device))
            for row in (on_server, on_device):
                assert not row["_morango_dirty_bit"], row
            assert on_server["picture_password"] == on_device["picture_password"]
    return found


def detached(stage: Stage) -> str:
    """Let the sync end before a worker has even begun."""
    with services.start_redis() as broker:
        server = stage.plugged_in(KOLIBRI_CELERY_BROKER_URL=broker, KOLIBRI_MORANGO_CELERY_MODE="detach")
        with server.server() as (url, _):
            ended(stage.device.sync_with(url, "--no-pull"))
        (run,) = server.runs()
        assert run["state"] == "pending", run
        with server.worker() as worker:
            wait_for(worker, lambda: server.runs()[0]["state"] == "completed", "through with the run")
        assert server.snapshot()["tables"][NOTIFICATIONS] == {}  # made at the end of the sync: too early
        return stage.compare(server, leaving_out={NOTIFICATIONS})


def no_broker(stage: Stage) -> str:
    """Enable the plug-in without a broker: the server deserializes, and says why."""
    server = stage.plugged_in()
    missing = "because no broker is configured"
    assert "(morango_celery.kolibri.W001) Syncs are deserialized by the process" in server.manage("check")
    refusal = refusal_of_worker(server)
    assert "error: No broker is configured. Set CELERY_BROKER_URL in section [MorangoCelery]" in refusal
    with server.server() as (url, process):
        assert missing in process.log()
        ended(stage.device.sync_with(url, "--no-pull"))
    assert_run(server, in_process=True)
    return stage.compare(server)


def broker_down(stage: Stage) -> str:
    """Redis is down when the sync comes, and back later."""
    port = services.free_port()
    broker = f"redis://127.0.0.1:{port}/0"
    server = stage.plugged_in(KOLIBRI_CELERY_BROKER_URL=broker)
    with server.server() as (url, process), pushing(stage.device, url) as push:
        wait_for(process, lambda: "The broker can't be reached" in process.log(), "in need of its broker")
        assert push.is_running
        with services.start_redis(port=port), server.worker() as worker:
            ended(push)
            assert_carried_out_by(worker, process)
    assert_run(server, in_process=False)
    return stage.compare(server)


def dying_worker(stage: Stage) -> str:
    """Kill the worker after the repair, before its commit; another one goes on."""
    with services.start_redis() as broker:
        server = stage.plugged_in(KOLIBRI_CELERY_BROKER_URL=broker)
        dying = replace(
            server, settings={**server.settings, "DJANGO_SETTINGS_MODULE": "tests.kolibri.plug_in.dying"}
        )
        with server.server() as (url, process), pushing(stage.device, url) as push:
            with dying.worker() as first:
                first.wait_until_ended(SLOW_SECONDS)
            assert "dying in the middle of a repair" in first.log()
            assert "gave way to synced ones" in first.log()
            before = server.snapshot()["tables"]
            assert user(before, "holder")["picture_password"] == people.COVETED
            with server.worker() as second:
                assert push.is_running
                server.manage("recover_runs", "--all")
                ended(push)
            assert "gave way to synced ones" in second.log()
        assert "Failed to deserialize Store record" not in process.log()
    assert_run(server, in_process=False)
    return stage.compare(server)


def no_password_left(stage: Stage) -> str:
    """All picture passwords are given away: who has to give way gets none."""
    with services.start_redis() as broker:
        server = stage.plugged_in(KOLIBRI_CELERY_BROKER_URL=broker, DJANGO_SETTINGS_MODULE=EXHAUSTED)
        with server.server() as (url, _), server.worker():
            ended(stage.device.sync_with(url, "--no-pull"))
    return stage.compare(server, EXHAUSTED)


def what_stops_kolibri(stage: Stage) -> str:
    """Send a record that refers to the collided user: it ends a sync with Kolibri alone, and none with the
    plug-in."""
    device = stage.device
    device.act(people.attended.__name__)
    with stage.server.server() as (url, process):
        assert status_of(device.copy().sync_with(url, "--no-pull")) != 0
        assert "violates foreign key constraint" in process.log()
    server = stage.plugged_in()
    with server.server() as (url, _):
        ended(device.sync_with(url, "--no-pull"))
    assert_run(server, in_process=True)
    tables = server.snapshot()["tables"]
    claimant = user(tables, "claimant")["id"]
    attended = [row for row in tables["attendance_attendancerecord"].values() if row["user_id"] == claimant]
    assert len(attended) == 1, attended
    return "Kolibri's sync failed, and the plug-in's did not"


def sqlite(stage: Stage) -> str:
    """Deserialize in the server on SQLite; a worker says that there is nothing to do for it."""
    server = stage.plugged_in()
    assert "no issues" in server.manage("check")
    assert "error: Kolibri's database is SQLite" in refusal_of_worker(server)
    with server.server() as (url, _):
        ended(stage.device.sync_with(url, "--no-pull"))
    assert_run(server, in_process=True)
    return stage.compare(server)


def sqlite_device(stage: Stage) -> str:
    """Pull to a device on SQLite that has the plug-in, inside Kolibri's lock of its database."""
    device = stage.device
    device.command("kolibri", "plugin", "enable", PLUG_IN)
    with stage.server.server() as (url, _):
        ended(device.sync_with(url, "--no-push"))
    assert_run(device, in_process=True)
    users = device.snapshot()["tables"]
    claimant, holder = (user(users, name) for name in ("claimant", "holder"))
    assert holder["picture_password"] == people.COVETED
    assert claimant["picture_password"] in PASSWORDS - {people.COVETED}
    assert claimant["_morango_dirty_bit"]
    return "the device's learner gave way to the server's"


def disabled(stage: Stage) -> str:
    """Enable and disable the plug-in: Kolibri is as before, and no worker starts."""
    server = stage.plugged_in()
    server.manage("check")
    server.command("kolibri", "plugin", "disable", PLUG_IN)
    assert "error: The plug-in isn't enabled in KOLIBRI_HOME" in refusal_of_worker(server)
    with server.server() as (url, process):
        ended(stage.device.sync_with(url, "--no-pull"))
        assert "Failed to deserialize Store record" in process.log()
    server.command("kolibri", "plugin", "enable", PLUG_IN)
    assert server.runs() == []
    return "Kolibri deserialized as before"


def refusal_of_worker(server: Installation) -> str:
    """Return the output of a worker that doesn't start."""
    worker = server.start("python", *WORKER)
    assert status_of(worker) == 1, worker.log()
    return worker.log()


def assert_carried_out_by(worker: LoggedProcess, server: LoggedProcess) -> None:
    """Assert that records were deserialized there. Records that wait for the collision's repair cause a
    warning."""
    assert "Failed to deserialize Store record" in worker.log()
    assert "Failed to deserialize Store record" not in server.log()


def assert_run(server: Installation, *, in_process: bool) -> None:
    (run,) = server.runs()
    assert (run["state"], run["in_process"]) == ("completed", in_process), run
    assert run["records"]["failed"] == 0, run
    assert run["pass"] > 1, f"nothing was repaired: {run}"


SCENARIOS: Sequence[Scenario] = (
    *(
        Scenario(play.__doc__ or "", "postgresql", play)
        for play in (
            workers,
            detached,
            no_broker,
            broker_down,
            dying_worker,
            no_password_left,
            what_stops_kolibri,
            disabled,
        )
    ),
    *(Scenario(play.__doc__ or "", "sqlite", play) for play in (sqlite, sqlite_device)),
)
