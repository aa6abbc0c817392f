"""Ingesting a log of objects: the two implementations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measurement import Order
from bench.work import Work, timed


@contextmanager
def oplog(order: Order) -> Iterator[Work]:
    """Yield the work of ``manage.py ingest_objects``."""
    from morango_celery.oplog.ingest import Ingestion

    with _log(order.records) as path:
        yield timed(lambda _: Ingestion(path, "bench").read_on())


@contextmanager
def one_by_one(order: Order) -> Iterator[Work]:
    """Each line deserialized by Django, and saved or deleted."""
    with _log(order.records) as path:
        yield timed(lambda _: _apply(path))


def _apply(path: Path) -> None:
    from django.core import serializers

    with path.open() as file:
        for line in file:
            _, operation, objects = line.split(" ", 2)
            for found in serializers.deserialize("json", objects):
                if operation == "SAVE":
                    found.save()
                else:
                    found.object.delete()


@contextmanager
def _log(lines: int) -> Iterator[Path]:
    """Write the log in another process, so that its memory isn't counted."""
    with TemporaryDirectory(prefix="bench-oplog-") as folder:
        path = Path(folder) / "changes.log"
        subprocess.run([sys.executable, "-m", "bench.log", str(path), str(lines)], check=True)
        yield path
