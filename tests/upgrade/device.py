"""Process of a device that syncs with a project again and again, until it is told to stop.

It pushes to the servers that a file names, one after another. Where a server goes away in the middle, it
begins anew, as devices do. It writes one line for each push that the server has completed.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import count
from pathlib import Path

import django

PAUSE_SECONDS = 0.2
"""Pause of a device whose server is gone."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade.device", description=__doc__)
    parser.add_argument(
        "--servers", type=Path, required=True, help="file with a URL in each line; empty: stop"
    )
    parser.add_argument("--school", required=True)
    parser.add_argument("--account", required=True)
    arguments = parser.parse_args()
    django.setup()
    # Imports models, and so has to wait for the set-up
    from worker.demo import device
    from worker.demo.school import School, create

    device.prepare_database()
    school = School(arguments.school, 60)
    for records in (school.early_records(), school.records()):
        for _ in create(records):
            pass
    urls: list[str] = []
    has_failed = False
    for number in count():
        named = arguments.servers.read_text().split()
        if not named and not has_failed:  # what it has, the servers have, too
            return
        urls = named or urls
        if number and not has_failed:
            _edit(arguments.school, number)
        url = urls[number % len(urls)]
        try:
            _push(url, arguments)
        except Exception as error:  # of any kind: the server may go at any point of a sync
            print(f"again, after {type(error).__name__}: {error}", flush=True)
            has_failed = True
            time.sleep(PAUSE_SECONDS)
            continue
        has_failed = False
        print(f"pushed to {url}", flush=True)


def _push(url: str, arguments: argparse.Namespace) -> None:
    from morango.models import Certificate

    from worker.demo import device

    connection = device.connect(url, 1000)
    school_id = arguments.school
    own = Certificate.objects.exclude(_private_key=None).first()
    if own is None:
        own, theirs = device.fetch_certificate(
            connection, school_id, arguments.account, os.environ["DEMO_PASSWORD"]
        )
    else:
        (theirs,) = connection.get_remote_certificates(school_id, device.SCOPE)
    device.push(connection, own, theirs, school_id, quiet=True)


def _edit(school_id: str, number: int) -> None:
    """Add records, change some and delete one."""
    from worker.school.models import Attempt, Learner, Lesson, Unit

    unit = Unit.objects.order_by("id").first()
    assert unit is not None
    unit.name = f"Renamed {number} times"
    unit.save()
    for name in range(8):
        Lesson.objects.create(school_id=school_id, unit=unit, title=f"Lesson {number}/{name}")
        learner = Learner.objects.create(
            school_id=school_id,
            unit=unit,
            username=f"{number}-{name}",
            full_name=f"Ada Lovelace {number}/{name}",
        )
        Attempt.objects.create(learner=learner, score=0.5, answered_at="2026-01-02T03:04:05Z")
    old = Lesson.objects.filter(title=f"Lesson {number - 2}/0").first()
    if old is not None:
        old.delete()


if __name__ == "__main__":
    main()
