"""Process that repeats one job, killed right before one of its events: ``python -m tests.oplog.dying JOB``.

Each attempt is a process of its own that dies of SIGKILL before its n-th statement or COMMIT. n rises each
time; the last attempt has no n-th event and survives. The number of deaths is printed. JOB is
``ingest FILE N`` or ``record STEPS N``; n rises by N.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import django


class Countdown:
    """Decision to die before the n-th point."""

    def __init__(self, events: int) -> None:
        self.events = events

    def before(self, what: str) -> bool:
        self.events -= 1
        if self.events == 0:
            self.die(what)
        return False

    def die(self, what: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main(what: str, argument: str, stride: str) -> int:
    django.setup()
    from tests.support import death_points

    death_points.watch_statements()
    death_points.watch_commits()
    jobs: dict[str, Callable[[str], Any]] = {"ingest": ingest, "record": record}
    for deaths, events in enumerate(count(1, int(stride))):
        child = os.fork()
        if child == 0:
            death_points.watch(Countdown(events))
            jobs[what](argument)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            print(deaths)
            return os.waitstatus_to_exitcode(status)
    return 0


def ingest(path: str) -> None:
    from django.core.management import call_command

    call_command("ingest_objects", path, "--source=dying", "--batch-size=12")


def record(steps: str) -> None:
    """Change several objects, in one transaction a step."""
    from django.db import transaction

    from tests.library.models import Book, Shelf, Tag

    for _ in range(int(steps)):
        with transaction.atomic():
            number = Shelf.objects.count()
            shelf = Shelf.objects.create(pk=number + 1, name="x")
            book = Book.objects.create(title=str(number), shelf=shelf)
            book.tags.add(Tag.objects.get_or_create(slug=f"t{number % 3}")[0])
            Book.objects.filter(title=str(number - 2)).delete()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
