"""Helpers to write logs by hand, to ingest them, and to read the database afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core import serializers
from django.db import transaction

from morango_celery.oplog.ingest import Ingestion, IngestionProgress
from morango_celery.oplog.lines import Operation, format_line
from morango_celery.oplog.models import DeadLetter, IngestPosition

SOURCE = "test"


def save(model: str, pk: Any = None, **fields: Any) -> str:
    """Return a line about an object of the library, without a key if `pk` is None."""
    return line(Operation.SAVE, model, pk, fields)


def delete(model: str, pk: Any) -> str:
    return line(Operation.DELETE, model, pk, {})


def line(operation: Operation, model: str, pk: Any, fields: dict[str, Any]) -> str:
    data = {"model": f"library.{model}", **({} if pk is None else {"pk": pk}), "fields": fields}
    return format_line(1_000_000_000, operation, json.dumps([data]))


def append(path: Path, *lines: str, end: str = "\n") -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + end)


def ingest(path: Path, batch_lines: int = 1000, source: str = SOURCE) -> IngestionProgress:
    ingestion = Ingestion(path, source, batch_lines)
    ingestion.read_on()
    return ingestion.progress


def ingested(
    path: Path, lines: Iterable[str], batch_lines: int = 1000, source: str = SOURCE
) -> IngestionProgress:
    """Ingest these lines, added to the log."""
    append(path, *lines)
    return ingest(path, batch_lines, source)


def library() -> dict[str, list[dict[str, Any]]]:
    """Return all rows of the library, by model, with many-to-many values."""
    found = {}
    for model in apps.get_app_config("library").get_models():
        if not model._meta.proxy:
            rows = serializers.serialize("python", model._base_manager.order_by("pk"))
            for row in rows:
                row["fields"] = {
                    name: sorted(value, key=str) if isinstance(value, list) else value
                    for name, value in row["fields"].items()
                }
            found[model._meta.label] = rows
    return found


def empty_library() -> None:
    """Delete all rows of the library, without any signal."""
    with transaction.atomic():
        for model in apps.get_app_config("library").get_models(include_auto_created=True):
            rows: Any = model._base_manager.all()
            rows._raw_delete(rows.db)


def letters() -> list[tuple[int, str]]:
    """Return the offsets and reasons of the open dead letters."""
    return [
        (letter.offset, letter.reason)
        for letter in DeadLetter.objects.filter(state=DeadLetter.State.OPEN).order_by("pk")
    ]


def positions() -> list[tuple[str, int, int]]:
    """Return each position's name of the file, offset and number of lines."""
    found = IngestPosition.objects.order_by("pk")
    return [(Path(position.path).name, position.offset, position.lines) for position in found]
