"""docker-compose.yml on a real engine, from nothing to a deployment that was scaled, killed and restarted.

``make compose`` runs it. Where no engine answers, it says so and does nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.smoke.compose_engine import Engine, execute, reason_to_skip
from tests.support.processes import LoggedProcess
from tests.support.waiting import until

PATIENCE_SECONDS = 1200
"""Above STALLED_AFTER_SECONDS: so late is a message sent again that a killed worker took but didn't begin."""
RESTART_SECONDS = 120
ROLES = {"morango_application", "morango_migration", "postgres"}
LASTING = ["flower", "recover", "web", "worker"]
"""The services of the project that don't end."""
FOUND_SCHOOL = "from worker.demo.server import found_school; print(found_school())"
RUNNING = "SELECT count(*) FROM morango_celery_run WHERE state = 'running'"
BEGUN = "SELECT worker FROM morango_celery_batch WHERE state = 'open' AND attempts > 0"
WORKER = re.compile(r"celery@(\w+)")
ACCESS = re.compile(r"Access\(school_id='(\w+)', account='(\w+)', password='([\w-]+)'\)")


class FailedStepError(Exception):
    """Something isn't as it has to be."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.smoke.compose_run", description=__doc__)
    parser.add_argument("--records", type=int, default=20_000, help="records of each push")
    parser.add_argument("--rabbitmq", action="store_true", help="with RabbitMQ as the broker, by its profile")
    arguments = parser.parse_args()
    records = arguments.records
    reason = reason_to_skip(execute)
    if reason is not None:
        print(f"skipped: no Docker engine with Compose answers here ({reason})")
        return 0
    with tempfile.TemporaryDirectory(prefix="compose-") as folder:
        engine = Engine(Path(folder), execute, has_rabbitmq=arguments.rabbitmq)
        prove(engine, Device(Path(folder), records).push, records)
    return 0


def prove(engine: Engine, push: Callable[[Engine, tuple[str, ...], bool], None], records: int) -> None:
    """Carry out all steps, and remove everything afterwards, whatever happens.

    :param push: pushes records to the deployment, as a device, and kills a worker meanwhile if asked to
    :raises FailedStepError: something isn't as it has to be
    """
    print(engine.versions(), flush=True)
    try:
        _timed("up, built and healthy", lambda: engine.compose("up", "--detach", "--build", "--wait"))
        _require(not engine.dangling(), "the build left images without a name")
        containers = engine.containers()
        _timed("up again", lambda: engine.compose("up", "--detach", "--wait"))
        _require(engine.containers() == containers, "a second `up` created containers again")

        printed = engine.compose(
            "run", "--rm", "-T", "web", "python", "-m", "worker", "shell", f"--command={FOUND_SCHOOL}"
        )
        access = ACCESS.search(printed)
        _require(access is not None, f"no school was founded: {printed}")
        assert access is not None
        _timed("a push from outside", lambda: push(engine, access.groups(), False))
        _require_saved(engine, records, pushes=1)
        if engine.has_rabbitmq:
            _require("morango" in engine.users_of_rabbitmq(), "nobody is connected to RabbitMQ")

        _timed("crashed, and started again", lambda: crash(engine))
        _timed(
            "scaled to three workers",
            lambda: engine.compose("up", "--detach", "--wait", "--scale=worker=3", "--no-recreate"),
        )
        _require(len(engine.containers("worker")) == 3, "there are not three workers")
        _timed("a push with a worker killed", lambda: push(engine, access.groups(), True))
        _require_saved(engine, records, pushes=2)
        roles = set(engine.query("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename IS NOT NULL"))
        _require("morango_application" in roles and roles <= ROLES, f"sessions of other roles: {roles}")

        runs = engine.runs()
        rows = engine.query("SELECT count(*) FROM morango_store")
        _timed("down, and up", lambda: (engine.compose("down"), engine.compose("up", "--detach", "--wait")))
        _require(engine.query("SELECT count(*) FROM morango_store") == rows, "records got lost")
        _require([run["run"] for run in engine.runs()] == [run["run"] for run in runs], "runs got lost")
        print("done: nothing was lost")
    except Exception:  # whatever it was, the services' logs tell more of it
        print(engine.compose("logs", "--no-color", "--tail=50"), flush=True)
        raise
    finally:
        _timed("removed", engine.remove)


def crash(engine: Engine) -> None:
    """Let each process of the project's end by a fault, and wait until the engine has started it again."""
    for service in LASTING:
        engine.crash(service)
    until(lambda: all(engine.restarts(LASTING)), "started again", RESTART_SECONDS)
    engine.compose("up", "--detach", "--wait")


def kill_a_worker(engine: Engine) -> bool:
    """Kill the container of a worker amid a batch, as a machine would that is gone.

    The database tells which: a management command takes seconds to start.

    :return: False if no batch is begun
    :raises FailedStepError: the run was over
    """
    begun = WORKER.search("".join(engine.query(BEGUN)))
    if begun is None:
        return False
    engine.docker("kill", "--signal=KILL", begun[1])
    is_running = engine.query(RUNNING) != ["0"]
    _require(is_running, "the run was over when the worker was killed; more --records take longer")
    return True


class Device:
    """A device outside of the containers, which pushes records."""

    def __init__(self, folder: Path, records: int) -> None:
        self._folder, self._records, self._pushes = folder, records, 0

    def push(self, engine: Engine, access: tuple[str, ...], with_kill: bool) -> None:
        school, account, password = access
        self._pushes += 1
        name = f"device{self._pushes}"
        device = LoggedProcess(
            [
                *("worker.demo.sender", "--server", engine.server, "--school", school),
                *("--account", account, "--records", str(self._records), "--plain"),
            ],
            self._folder / f"{name}.log",
            {
                "DATABASE_URL": f"sqlite:///{self._folder / name}.sqlite3",
                "SECRET_KEY": "device",
                "REDIS_URL": "",
                "DEMO_PASSWORD": password,
                "NO_PROXY": "127.0.0.1",
            },
        )
        try:
            if with_kill:
                device.wait_until(lambda: kill_a_worker(engine), "deserialized", PATIENCE_SECONDS)
            _require(device.wait_until_ended(PATIENCE_SECONDS) == 0, f"the push failed: {device.log()}")
        finally:
            device.stop()


def _require_saved(engine: Engine, records: int, *, pushes: int) -> None:
    runs = engine.runs()
    counts = [(run["state"], run["records"]["saved"], run["records"]["failed"]) for run in runs]
    _require(counts == [("completed", records, 0)] * pushes, f"not all is saved: {counts}")
    print(f"          {records:,} records saved by each of {pushes} runs", flush=True)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise FailedStepError(otherwise)


def _timed(step: str, carry_out: Callable[[], object]) -> None:
    begun = time.monotonic()
    carry_out()
    print(f"{time.monotonic() - begun:6.1f} s  {step}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
