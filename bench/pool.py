"""Processes that serve syncs with Morango's whole stage.

Nothing here imports models before Django is set up in the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import django

RETRY_AFTER_SECONDS = 0.05

_ready: Barrier
"""The barrier at which the processes of a pool begin together."""


@contextmanager
def pool_of(processes: int, models: str) -> Iterator[tuple[ProcessPoolExecutor, list[int]]]:
    """Yield a pool whose processes have all begun, and their ids."""
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (models, context.Barrier(processes))) as pool:
        yield pool, list(pool.map(_wait_for_others, range(processes)))


def serve_sync(profile: str, prefixes: str) -> float:
    """Carry the stage out, and return when it was done.

    Morango's clients ask again when the database refused to serialize, or made two give way to each other.
    """
    from django.db import OperationalError
    from morango.models.certificates import Filter

    from bench.stage import morango_stage

    while True:
        try:
            morango_stage(profile, Filter(prefixes))
        except OperationalError:
            time.sleep(RETRY_AFTER_SECONDS)
        else:
            return time.time()


def _begin(models: str, ready: Barrier) -> None:
    global _ready
    _ready = ready
    django.setup()
    from bench.stage import use_hosts_cache

    use_hosts_cache(models)


def _wait_for_others(_: int) -> int:
    _ready.wait()
    return os.getpid()
