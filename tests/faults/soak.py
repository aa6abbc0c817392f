"""Syncs arriving for minutes while workers, Redis and database sessions are killed; then: is all there?

``python -m tests.faults.soak --minutes 10``. Its servers are its own. Memory is flat if no pool process
has grown by more than `GROWTH` and `SLACK_BYTES` between its first `WARM_UP` calm runs and the last one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import psutil

from tests.faults.servers import Server, own_postgres, own_redis
from tests.support.processes import LoggedProcess

WARM_UP, CALM_RUNS, CALM_ROWS = 4, 12, 2000
GROWTH, SLACK_BYTES = 1.10, 10_000_000
WORKERS = 2
RECOVERY_SECONDS = 300
ENVIRONMENT = {
    "SECRET_KEY": "for-the-soak-only",
    "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
    "MORANGO_CELERY_BATCH_SIZE_RECORDS": "200",
    "MAX_ATTEMPTS": "100",  # the kills are ours: no record is to blame
    "STALLED_AFTER_SECONDS": "5",
    "VISIBILITY_TIMEOUT": "10",
}


class Soak:
    """One soak, from the first sync to the last check."""

    def __init__(self, chance: random.Random, redis: Server, logs: Path) -> None:
        self.chance = chance
        self.redis = redis
        self.logs = logs
        self.did: Counter[str] = Counter()
        self.workers: list[LoggedProcess] = []
        self.titles: dict[str, str] = {}
        """Final titles of each school's lessons, by school id."""

    def start_worker(self) -> None:
        number = self.did["workers started"] = self.did["workers started"] + 1
        arguments = ["morango_celery.worker", "-A", "worker", "--loglevel=INFO", "--concurrency=2"]
        arguments += [f"--hostname=soak{number}@%h", "--without-gossip", "--without-mingle"]
        worker = LoggedProcess(arguments, self.logs / f"worker{number}.log", {})
        self.workers.append(worker)
        worker.wait_for_log(" ready.", 60)

    def children(self) -> list[psutil.Process]:
        return [child for worker in self.workers for child in psutil.Process(worker.pid).children()]

    def sync(self, rows: int | None = None) -> str:
        """Let a new school arrive, with records that nobody can deserialize among the others."""
        import morango_celery
        from tests.support import factories
        from worker.school.models import PROFILE

        number = self.did["syncs"] = self.did["syncs"] + 1
        school = hashlib.md5(str(number).encode()).hexdigest()
        made = factories.fill_store(rows or self.chance.randrange(50, 1500), school_id=school)
        factories.store_row("lesson", school_id=school, serialized="{", source_id=f"broken-{school}")
        self.did["records"] += sum(made.values()) + 1
        morango_celery.deserialize(PROFILE, school)
        return school

    def sync_again(self) -> None:
        """Let newer versions of a school's lessons arrive while older ones may be in work."""
        from django.db import OperationalError, transaction
        from morango.models import Store

        import morango_celery
        from worker.school.models import PROFILE

        if not self.did["syncs"]:
            return
        school = hashlib.md5(str(self.chance.randrange(1, self.did["syncs"] + 1)).encode()).hexdigest()
        title = f"Version {self.did['syncs again'] + 2}"
        try:
            with transaction.atomic():
                lessons = Store.objects.filter(model_name="lesson", partition__startswith=school)
                for row in lessons.exclude(serialized="{").order_by("id").select_for_update():
                    row.serialized = json.dumps({**json.loads(row.serialized), "title": title})
                    row.dirty_bit = True
                    row.save(update_fields=["serialized", "dirty_bit"])
                    self.did["records"] += 1
        except OperationalError:  # a deadlock: it didn't arrive
            return
        self.did["syncs again"] += 1
        self.titles[school] = title
        morango_celery.deserialize(PROFILE, school)

    def kill_pool_process(self) -> None:
        children = self.children()
        if children:
            self.chance.choice(children).kill()
            self.did["pool processes killed"] += 1

    def kill_worker(self) -> None:
        worker = self.workers.pop(self.chance.randrange(len(self.workers)))
        worker.kill()
        self.did["workers killed"] += 1
        self.start_worker()

    def restart_redis(self) -> None:
        self.redis.end()
        time.sleep(self.chance.random())  # how long it is away is part of the trouble
        self.redis.start()
        self.did["restarts of Redis, empty"] += 1

    def cut_sessions(self) -> None:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            self.did["database sessions cut"] += len(cursor.fetchall())

    def make_trouble(self, seconds: float) -> None:
        import morango_celery

        events: list[tuple[Callable[[], Any], int]] = [
            (self.sync, 8),
            (self.sync_again, 4),
            (self.kill_pool_process, 4),
            (self.kill_worker, 2),
            (self.restart_redis, 1),
            (self.cut_sessions, 2),
            (morango_celery.recover_runs, 4),
        ]
        happen, weights = zip(*events, strict=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.chance.choices(happen, weights)[0]()
            time.sleep(self.chance.random())

    def wait_for_recovery(self) -> None:
        """Let all faults end, and wait for recovery."""
        import morango_celery
        from morango_celery.models import Run

        deadline = time.monotonic() + RECOVERY_SECONDS
        while unfinished := Run.objects.exclude(state__in=(Run.State.COMPLETED, Run.State.FAILED)).count():
            if time.monotonic() > deadline:
                raise AssertionError(f"{unfinished} runs have not ended after {RECOVERY_SECONDS} s")
            morango_celery.recover_runs()
            time.sleep(1)

    def memory_of_calm_runs(self) -> tuple[int, int]:
        """Return the largest resident size of a pool process, in bytes: warmed up, and in the end."""
        sizes = []
        for _ in range(WARM_UP + CALM_RUNS):
            self.sync(CALM_ROWS)
            self.wait_for_recovery()
            sizes.append(max(child.memory_info().rss for child in self.children()))
        return sizes[WARM_UP - 1], sizes[-1]

    def problems(self) -> list[str]:
        """Return all faults of the final state; none if it is right."""
        from morango.models import Store

        from morango_celery.models import Batch, Run
        from tests.support import factories
        from worker.school.models import Lesson

        found = [f"run {run.pk}: {run.state} {run.error}" for run in Run.objects.exclude(state="completed")]
        if Batch.objects.filter(state=Batch.State.OPEN).exists():
            found.append("batches are open")
        wrong = (
            Store.objects.filter(dirty_bit=True)
            .exclude(serialized="{")
            .values_list("id", "deserialization_error")
        )
        found += [f"record {pk} is dirty: {error}" for pk, error in wrong[:20]]
        broken = Store.objects.filter(serialized="{")
        silent = broken.filter(deserialization_error=None).count() + broken.filter(dirty_bit=False).count()
        if silent or broken.count() != self.did["syncs"]:
            found.append(f"{silent} of {broken.count()} broken records have no error")
        for name, rows in factories.app_rows().items():
            expected = Store.objects.filter(model_name=name).exclude(serialized="{")
            if {row["id"] for row in rows} != set(expected.values_list("id", flat=True)):
                found.append(f"{len(rows)} rows of {name} instead of {expected.count()}, or others")
        for school, title in self.titles.items():
            titles = set(Lesson.objects.filter(school_id=school).values_list("title", flat=True))
            if titles != {title}:
                found.append(f"the lessons of {school} are called {sorted(titles)[:3]}, not {title}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with own_redis(durable=False) as redis, own_postgres() as database, tempfile.TemporaryDirectory() as logs:
        os.environ.update(ENVIRONMENT, DATABASE_URL=database.url, REDIS_URL=redis.url)
        django.setup()
        from django.core.management import call_command
        from morango.models import InstanceIDModel

        call_command("migrate", verbosity=0)
        InstanceIDModel.get_or_create_current_instance()
        soak = Soak(random.Random(arguments.seed), redis, Path(logs))
        try:
            for _ in range(WORKERS):
                soak.start_worker()
            soak.make_trouble(60 * arguments.minutes)
            soak.wait_for_recovery()
            for _ in range(WORKERS):  # fresh ones, of known memory
                soak.kill_worker()
            before, after = soak.memory_of_calm_runs()
            problems = soak.problems()
        finally:
            for worker in soak.workers:
                worker.stop()
            for what, number in soak.did.items():
                print(f"{number:>9,} {what}")
    if after > before * GROWTH + SLACK_BYTES:
        problems.append("worker memory is not flat")
    print(f"{before / 1e6:.0f} MB in the largest pool process warmed up, {after / 1e6:.0f} MB in the end")
    print("\n".join(problems) or "Nothing is lost: every record is saved or in error.")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
