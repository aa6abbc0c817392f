"""Steps of the demo, from the server's first table to the comparison of both instances."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from django.db import connections

from morango_celery.models import Run
from worker.demo import server
from worker.demo.attachment import device_attached
from worker.demo.display import Display
from worker.demo.following import Sync, follow
from worker.demo.instances import Instances
from worker.demo.memory import peak_memory_bytes
from worker.demo.processes import Process, stop_all
from worker.demo.school import MODELS
from worker.demo.table import Row, rendered, rendered_errors, rows
from worker.demo.verify import verify


def tell(
    records: int,
    folder: Path,
    environment: dict[str, str],
    stack: ExitStack,
    display: Display,
    check: Callable[[], None],
) -> int:
    """Carry the demo out.

    :param folder: place of logs and of the device's database
    :param environment: environment variables of the server's processes
    :param stack: gets all that has to be stopped
    :param check: called often; raises if the user stops the demo
    :returns: the exit status
    """
    stack.callback(connections.close_all)
    with display.step("Server: its tables, the school's root certificate, an account"):
        server.create_tables()
        access = server.found_school()
    check()
    instances = Instances(folder, check)
    stack.callback(lambda: stop_all(instances.started))
    with display.step("Server: starting HTTP and two workers"):
        url = instances.start_server(environment)
        workers = instances.start_workers(environment)
    idle = _peak_memory(workers)
    display.begin("Device: its tables, a certificate from the server")
    arguments = ["--server", url, "--school", access.school_id, "--account", access.account]
    device = instances.start_device(environment, [*arguments, "--records", str(records)], access.password)

    def check_all() -> None:
        check()
        for process in instances.started:
            if process is not device:
                process.check()

    sync = follow(device, display, check_all)
    run = sync.run
    assert run is not None
    table = rows(sync)
    display.line(f"\n{rendered(table)}\n")
    display.line(_measured(run, idle, _peak_memory(workers)))
    display.line(f"\nBroken on purpose, as the server's Store has them:\n{rendered_errors(sync.broken)}\n")
    with device_attached(instances.device_url) as device_alias:
        return _compare(sync, table, device_alias, display, check)


def _measured(run: Run, idle_bytes: int | None, peak_bytes: int | None) -> str:
    assert run.started_at is not None
    assert run.finished_at is not None
    seconds = (run.finished_at - run.started_at).total_seconds()
    text = f"Deserialized in {seconds:.2f} s: {run.records / seconds:,.0f} records a second."
    if idle_bytes is None or peak_bytes is None:
        return text
    mib = 2**20
    return (
        f"{text} A worker's process had {peak_bytes / mib:.0f} MiB at most "
        f"({idle_bytes / mib:.0f} MiB before the first record)."
    )


def _peak_memory(workers: list[Process]) -> int | None:
    """Return the largest peak of memory of the workers' children, in bytes."""
    peaks = [peak_memory_bytes(worker.pid) for worker in workers]
    return max((peak for peak in peaks if peak is not None), default=None)


def _compare(sync: Sync, table: list[Row], device: str, display: Display, check: Callable[[], None]) -> int:
    def on_progress(compared: int) -> None:
        check()
        display.progress(compared)

    rows_there = sum(model.syncing_objects.count() for model in MODELS)
    display.begin("Comparing every column of every record with the device's", rows_there)
    verification = verify(sync, table, device, on_progress)
    display.end()
    if verification.problems:
        display.line(f"\nNOT VERIFIED:\n{verification.summary}\n")
        return 1
    display.line(
        f"\nVerified: {verification.compared:,} app rows of the server equal the device's, column by column. "
        f"Missing are\nthe {len(sync.broken)} broken records, which are in error, and "
        f"{len(sync.orphans)} whose learner is deleted; nothing else.\n"
    )
    return 0
