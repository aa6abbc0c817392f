"""One implementation of a comparison, in a process and a database of its own: load, deserialize, dump.

``python -m tests.kolibri.implementation {morango|ours} SCENARIO SEED FILE``. The database comes from the
environment. Kolibri and Morango bind it when they are imported, so the process that starts it must import
nothing here.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import django
from django.conf import settings
from django.test import override_settings

from tests.kolibri.scenarios import SCENARIOS

PROFILE = "facilitydata"

CLOCK = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
"""The time of both, so that values of the clock can be told from synced values."""

BATCH_SIZES_RECORDS = (1000, 50, 7)
"""Each row order gets another one: our results depend on neither."""

FUNCTIONS = {
    "morango": ("morango.sync.operations", "_deserialize_from_store"),
    "ours": ("morango_celery", "deserialize_from_store"),
}

MAX_ROUNDS = 5
"""Largest number of times that a function is run again for records that failed because of row order."""


def main(name: str, scenario_name: str, seed: str, target: str) -> None:
    """Write the implementation's outcome of the scenario to the JSON file `target`."""
    django.setup()
    batch_size = BATCH_SIZES_RECORDS[int(seed) % len(BATCH_SIZES_RECORDS)]
    with (
        mock.patch("django.utils.timezone.now", return_value=CLOCK),
        override_settings(MORANGO_CELERY={**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": batch_size}),
    ):
        outcome = run(name, scenario_name, int(seed))
    Path(target).write_text(json.dumps(outcome), encoding="utf-8")


def run(name: str, scenario_name: str, seed: int) -> dict[str, Any]:
    """Deserialize the scenario's recordings one after the other.

    :return: the attributes of ``compare.Outcome``
    """
    from tests.kolibri.load import load
    from tests.kolibri.models import model_facts
    from tests.kolibri.serialization import compare
    from tests.support.dump import dump

    arrivals = next(s for s in SCENARIOS if s.name == scenario_name).in_order(seed)
    implementation = Implementation(name, arrivals.prefixes)
    for recording in arrivals.recordings[:-1]:
        load(recording)
        run_until_stable(implementation)
    load(arrivals.recordings[-1])
    implementation.seconds = 0.0
    aborted = implementation.attempt()
    poison = {about: {"ids": sorted(ids), "aborted": aborted} for about, ids in arrivals.poison.items()}
    poisonous = set[str]().union(*arrivals.poison.values())
    retried = False
    if aborted and poison:
        if len(poison) > 1:
            for about, ids in arrivals.poison.items():
                with implementation.without(poisonous - ids):
                    poison[about]["aborted"] = implementation.attempt()
        with implementation.without(poisonous):
            retried = implementation.attempt() is None
    tables, seconds = dump(), implementation.seconds
    with implementation.without(poisonous if aborted else ()):
        run_until_stable(implementation)
    again = dump()
    return {
        "implementation": name,
        "tables": tables,
        "again": None if again == tables else again,
        "aborted": aborted,
        "poison": poison,
        "retried": retried,
        "seconds": seconds,
        "models": model_facts(PROFILE),
        "serialization": compare(PROFILE) if name == "ours" else {},
        "clock": CLOCK.isoformat(),
    }


def run_until_stable(implementation: Implementation) -> None:
    """Run the implementation's function until it changes nothing more."""
    from tests.support.dump import dump

    after = dump()
    for _ in range(MAX_ROUNDS):
        before = after
        implementation.attempt()
        after = dump()
        if after == before:
            return


class Implementation:
    """A function with the signature of Morango's, and the results of its calls."""

    def __init__(self, name: str, prefixes: Collection[str]) -> None:
        from morango.models.certificates import Filter

        self._function = _function(name)
        self._filter = Filter("\n".join(prefixes)) if prefixes else None
        self.seconds = 0.0

    def attempt(self) -> str | None:
        """Run the function and return what it raised; its transaction is rolled back then."""
        begin = time.perf_counter()
        try:
            self._function(PROFILE, skip_erroring=False, filter=self._filter)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}".strip()
        finally:
            self.seconds += time.perf_counter() - begin
        return None

    @contextmanager
    def without(self, ids: Collection[str]) -> Iterator[None]:
        """Set the Store rows `ids` aside for the block: they look like ones that are done."""
        from morango.models.core import Store

        Store.objects.filter(id__in=ids).update(dirty_bit=False)
        yield
        Store.objects.filter(id__in=ids).update(dirty_bit=True)


def _function(name: str) -> Callable[..., object]:
    module, attribute = FUNCTIONS[name]
    function: Callable[..., object] = getattr(import_module(module), attribute)
    return function


if __name__ == "__main__":
    main(*sys.argv[1:])
