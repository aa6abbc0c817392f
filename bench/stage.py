"""The whole stage of a sync, by Morango and by us in this process: both merge local edits first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module

from morango.models.certificates import Filter

from bench.measurement import Order
from bench.profiles import PROFILES
from bench.work import Work, timed


def morango_stage(profile: str, sync_filter: Filter | None) -> None:
    """Run Morango's stage, unmodified, with the isolation that it gives itself."""
    operations = import_module("morango.sync.operations")
    operations._serialize_into_store(profile, filter=sync_filter)
    operations._deserialize_from_store(profile, filter=sync_filter)


def use_hosts_cache(models: str) -> None:
    """Let Morango have the cache that a host has for the time of a sync, as Kolibri has."""
    if models == "kolibri":
        import_module("kolibri.core.auth.models").dataset_cache.activate()


@contextmanager
def morango(order: Order) -> Iterator[Work]:
    use_hosts_cache(order.models)
    yield timed(partial(morango_stage, PROFILES[order.models]))


@contextmanager
def in_process(order: Order) -> Iterator[Work]:
    """Yield a run that needs no worker, with ledger, locks and all."""
    from morango_celery import deserialize

    yield timed(lambda sync_filter: deserialize(PROFILES[order.models], sync_filter, in_process=True))
