"""Command line of the demo: ``python -m worker.demo [--records N]``. Exit status 0 if all is as expected."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from django.core.exceptions import ImproperlyConfigured

from worker.demo import FEWEST_RECORDS
from worker.demo.databases import empty_postgres, empty_redis
from worker.demo.display import Display
from worker.demo.instances import server_environment
from worker.demo.interrupts import Interrupts, StopRequestedError
from worker.demo.processes import StepError
from worker.services import ServiceError


def main() -> int:
    records = _records()
    display = Display()
    interrupts = Interrupts()
    with interrupts.noted():
        try:
            with ExitStack() as stack:
                status = _run(records, stack, display, interrupts)
                display.begin("Stopping everything, removing everything")
        except StopRequestedError as stop:
            display.give_up()
            display.line(f"Stopped by {stop}; every process has ended, every file is removed.")
            return stop.exit_status
        except (StepError, ServiceError, ImproperlyConfigured) as error:
            display.give_up()
            print(f"error: {error}", file=sys.stderr)
            return 1
        display.end()
    return status


def _records() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m worker.demo",
        description="A device syncs records to a server, whose Celery workers deserialize them.",
    )
    parser.add_argument("--records", type=int, default=20_000, help="how many (default: %(default)s)")
    records: int = parser.parse_args().records
    if records < FEWEST_RECORDS:
        parser.error(f"--records must be at least {FEWEST_RECORDS}, to have a few of each kind")
    return records


def _run(records: int, stack: ExitStack, display: Display, interrupts: Interrupts) -> int:
    """Run the demo.

    :param stack: gets all that has to be stopped and removed
    """
    display.line(f"A device pushes {records:,} records to a server; Celery workers deserialize them there.\n")
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="morango-demo-")))
    with display.step("Starting Redis and PostgreSQL"):
        redis_url = stack.enter_context(empty_redis())
        interrupts.check()
        database_url = stack.enter_context(empty_postgres())
    interrupts.check()
    environment = server_environment(database_url, redis_url)
    os.environ.update(environment | {"LOG_LEVEL": "ERROR"})

    import django

    django.setup()
    # Imports models, and so has to wait for the set-up
    from worker.demo.story import tell

    return tell(records, folder, environment, stack, display, interrupts.check)


if __name__ == "__main__":
    sys.exit(main())
