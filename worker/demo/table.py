"""Table of the records' outcomes, read from the server's own tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten

from django.db.models import QuerySet
from morango.models import DeletedModels, Store

from worker.demo.following import Sync
from worker.demo.school import MODELS
from worker.demo.spoiling import Broken

ERROR_WIDTH = 130


@dataclass(frozen=True)
class Row:
    """The records of one model that came in one sync."""

    model_name: str
    sent: int
    """Records that the device has counted."""
    saved: int
    """Records with an app row."""
    deleted: int
    """Records deleted on the device, or together with their target."""
    failed: int
    """Records in error."""


def rows(sync: Sync) -> list[Row]:
    """Return a row for each model, referenced ones first, and their total."""
    found = []
    for model in MODELS:
        name = model.morango_model_name
        arrived: QuerySet[Store] = Store.objects.filter(
            last_transfer_session_id=sync.transfer_session_id, model_name=name
        )
        propagated = arrived.filter(deleted=False, id__in=DeletedModels.objects.values("id"))
        found.append(
            Row(
                name,
                sent=sync.sent.get(name, 0),
                saved=model.syncing_objects.filter(
                    id__in=arrived.filter(dirty_bit=False, deleted=False).values("id")
                ).count(),
                deleted=arrived.filter(dirty_bit=False, deleted=True).count() + propagated.count(),
                failed=arrived.filter(dirty_bit=True).count(),
            )
        )
    columns = [(row.sent, row.saved, row.deleted, row.failed) for row in found]
    return [*found, Row("total", *map(sum, zip(*columns, strict=True)))]


def rendered(rows: Sequence[Row]) -> str:
    lines = [f"{'model':<10}{'sent':>10}{'saved':>10}{'deleted':>10}{'failed':>10}"]
    for row in rows:
        if row.model_name == "total":
            lines.append("-" * len(lines[0]))
        lines.append(
            f"{row.model_name:<10}{row.sent:>10,}{row.saved:>10,}{row.deleted:>10,}{row.failed:>10,}"
        )
    return "\n".join(lines)


def rendered_errors(broken: Sequence[Broken]) -> str:
    """Return the broken records, each with its error in the server's Store, as text."""
    stored = Store.objects.in_bulk([record.id for record in broken])
    lines = []
    for record in broken:
        lines.append(f"{record.model_name} {record.id[:8]}, {record.how}:")
        lines.append(f"    {_error(stored.get(record.id))}")
    return "\n".join(lines)


def _error(row: Store | None) -> str:
    """Return an exception's name and message, in one line of a terminal."""
    if row is None or not row.deserialization_exception:
        return "no error"
    name = row.deserialization_exception.rsplit(".", 1)[-1]
    return shorten(f"{name}: {row.deserialization_error}", ERROR_WIDTH, placeholder=" ...")
