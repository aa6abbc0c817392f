"""The measurements that feed and check the model: ``python -m bench.simulation.probe WORKERS RECORDS``.

In a fresh process, on an empty migrated database that the environment names. Prints a `Probe` as JSON.
Processor time is counted per process by the kernel, so that other work on the machine changes it little.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median

import django
import psutil

from bench.processes import stop_in_order

SMALL_RECORDS = 100
SMALL_RUNS = 20
BESIDE_RUNS = 12
"""Number of small runs that are measured while a large one is carried out."""


@dataclass(frozen=True)
class Used:
    """Use of processors and time between two moments."""

    seconds: float
    worker: float
    """Processor seconds of the worker's processes."""
    database: float
    """Processor seconds of the server."""


@dataclass(frozen=True)
class Probe:
    workers: int
    records: int
    small_records: int
    planning: Used
    """Use by planning the large run's stages, in this process."""
    small: Used
    """Use of one small run; the median of the seconds."""
    large: Used
    beside: float
    """Seconds of a small run while a large one is carried out, the median."""
    large_beside: float
    """Seconds of that large one, which the small ones overtake."""
    small_runs_beside: int


def processor_seconds(pid: int) -> float:
    """Return the processor seconds of a process and its children, also of those that have ended."""
    total = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


class Clock:
    def __init__(self, worker_pid: int) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (backend,) = cursor.fetchone()
        self._worker, self._server = worker_pid, psutil.Process(backend).ppid()
        self._began = self._now()

    def _now(self) -> Used:
        return Used(time.perf_counter(), processor_seconds(self._worker), processor_seconds(self._server))

    def used(self) -> Used:
        now, began = self._now(), self._began
        return Used(now.seconds - began.seconds, now.worker - began.worker, now.database - began.database)


def probe(workers: int, records: int) -> Probe:
    from django.db import connection
    from morango.models.certificates import Filter

    from bench.data import school, school_id
    from bench.producer import produce
    from bench.store_rows import write
    from bench.workers import connect_to_empty_redis, enqueue_and_wait, running_worker
    from morango_celery.api import deserialize, wait_for
    from morango_celery.runs.inprocess import run_in_process
    from morango_celery.runs.producer import create_run
    from worker.school.models import PROFILE

    large, small = range(4), range(4, 4 + SMALL_RUNS + BESIDE_RUNS)
    for number in large:
        write(school(records, number))
    for number in small:
        write(school(SMALL_RECORDS, number))
    filters = [Filter(school_id(number)) for number in (*large, *small)]
    run_in_process(create_run(PROFILE, filters[3], serialize_first=False, session_notified=True))
    with connection.cursor() as cursor:  # a server that knows its tables, and not that they were empty once
        cursor.execute("VACUUM ANALYZE")
    connect_to_empty_redis()
    clock = Clock(psutil.Process().pid)
    produce(filters[0])
    planning = clock.used()
    connect_to_empty_redis()
    with running_worker(workers) as pid:
        warm_up, *rest = filters[4 : 4 + SMALL_RUNS]
        enqueue_and_wait(PROFILE, warm_up)
        clock = Clock(pid)
        seconds = median(enqueue_and_wait(PROFILE, sync_filter) for sync_filter in rest)
        used = clock.used()
        small_used = Used(seconds, used.worker / len(rest), used.database / len(rest))
        clock = Clock(pid)
        enqueue_and_wait(PROFILE, filters[1])
        large_used = clock.used()
        run = deserialize(PROFILE, filters[2], in_process=False)
        while not run.saved:
            time.sleep(0.01)
            run.refresh_from_db()
        beside = []
        for sync_filter in filters[4 + SMALL_RUNS :]:
            latency = enqueue_and_wait(PROFILE, sync_filter)
            run.refresh_from_db()
            if run.has_ended:
                break
            beside.append(latency)
        wait_for(run)
        assert run.finished_at is not None, "it has ended"
        large_beside = (run.finished_at - run.created_at).total_seconds()
        assert beside, "the large run was over before a small one; take more records"
    return Probe(
        workers,
        records,
        SMALL_RECORDS,
        planning,
        small_used,
        large_used,
        median(beside),
        large_beside,
        len(beside),
    )


if __name__ == "__main__":
    stop_in_order()
    django.setup()
    sys.stdout.write(json.dumps(asdict(probe(int(sys.argv[1]), int(sys.argv[2])))))
