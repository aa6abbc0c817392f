"""Processor time of a sync in each process that has part in it: ``python -m bench.cost [--help]``.

Syncs are asked for at once, as in the scenarios of fleets, or one after another. Other work on the machine
changes these figures less than how long the syncs take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench.databases import HOSTS, Databases, Dataset, run
from bench.measurement import Order
from bench.processes import stop_in_order
from worker import services
from worker.demo.databases import empty_redis

AT_ONCE = {"fleet": "workers", "morango-fleet": "Morango"}
ONE_AFTER_ANOTHER = {"tasks": "tasks", "morango-stage": "Morango"}
"""Implementations, and the heads of their columns."""

Account = dict[str, float]
"""Seconds of processor time by kind of process."""


def account(database: str, redis_port: int | None) -> Account:
    """Return what this process, its descendants, and the servers have used so far."""
    seconds: Account = defaultdict(float, {"this process": _seconds(psutil.Process())})
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            is_pool = child.ppid() != os.getpid() or not child.children()
            seconds["processes that execute" if is_pool else "worker's first process"] += _seconds(child)
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["name"].startswith("postgres") and f" {database} " in words:
            seconds["PostgreSQL's sessions"] += _seconds(process)
        elif process.info["name"] == "redis-server" and redis_port and f":{redis_port}" in words:
            seconds["Redis"] += _seconds(process)
    return seconds


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(order: Order) -> dict[str, float]:
    """Return milliseconds of processor time for each sync of a case, by kind of process."""
    import django

    django.setup()
    from django.db import connection

    from bench.cases import WARM_UP_SYNCS, number_of_syncs
    from bench.implementations import IMPLEMENTATIONS, syncs

    filters, warm_up = syncs(order)
    name = str(connection.settings_dict["NAME"])
    redis_port = urlsplit(os.environ.get("REDIS_URL", "")).port
    with IMPLEMENTATIONS[order.implementation](order) as work:
        for sync_filter in filters[:warm_up]:
            work.carry_out(sync_filter)
        before = account(name, redis_port)
        for sync_filter in filters[warm_up:]:
            work.carry_out(sync_filter)
        used = account(name, redis_port)
    number = number_of_syncs(order.case, order.records) - WARM_UP_SYNCS
    return {kind: (used[kind] - before.get(kind, 0)) * 1e3 / number for kind in used}


def table(found: dict[str, dict[str, float]], heads: dict[str, str]) -> str:
    """Return a line for each kind of process, and a column for each implementation."""
    kinds = list(dict.fromkeys(kind for costs in found.values() for kind in costs))
    lines = [f"{'ms of processor time a sync':32}" + "".join(f"{heads[name]:>10}" for name in found)]
    lines += [
        f"{kind:32}" + "".join(f"{costs.get(kind, 0):>10.1f}" for costs in found.values()) for kind in kinds
    ]
    return "\n".join([*lines, f"{'all':32}" + "".join(f"{sum(c.values()):>10.1f}" for c in found.values())])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--models", choices=["school", "kolibri"], default="school")
    parser.add_argument("--case", default="syncs_of_10", help="a case of many syncs (default: syncs_of_10)")
    parser.add_argument("--records", type=int, default=2_000, help="of all syncs together")
    parser.add_argument("--one-after-another", action="store_true", help="in one process, without workers")
    options = parser.parse_args(arguments)
    implementations = ONE_AFTER_ANOTHER if options.one_after_another else AT_ONCE
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        url = stack.enter_context(services.postgres(durable=True))
        environ = {"REDIS_URL": stack.enter_context(empty_redis())}
        databases = Databases(folder, url, environ)
        stack.callback(databases.close)
        databases.migrate(options.models, "postgresql")
        dataset = Dataset(options.models, "postgresql", options.case, options.records)
        for name in implementations:
            order = Order(name, options.models, options.case, options.records, workers=2)
            with databases.copy(dataset) as own:
                words = ("bench.cost", "--measure", json.dumps(asdict(order)))
                found[name] = json.loads(run(HOSTS[options.models].python, words, own))
    sys.stdout.write(f"{table(found, implementations)}\n")
    return 0


def _measure(order: str) -> None:
    fields: dict[str, Any] = json.loads(order)
    sys.stdout.write(json.dumps(measure(Order(**fields))))


if __name__ == "__main__":
    stop_in_order()
    if sys.argv[1:2] == ["--measure"]:
        _measure(sys.argv[2])
    else:
        sys.exit(main())
