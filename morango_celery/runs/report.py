"""What a run could not deserialize, grouped for reading."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Max

from morango_celery.deserialize import StoreModelSource
from morango_celery.models import Run


@dataclass(frozen=True)
class FailureGroup:
    """The records of one model that are in error with one exception."""

    model_name: str
    exception: str
    """Path of the exception's class."""
    count: int
    example_id: str
    example_error: str


def failures(run: Run) -> list[FailureGroup]:
    """The dirty records in error under the run's filter, the most frequent first.

    Cost: one query for the groups and one per group for its example.
    """
    source = StoreModelSource(run.profile, run.sync_filter, exclude_erroring=False)
    found: dict[tuple[str, str], FailureGroup] = {}
    for condition in source.prefix_conditions():
        in_error = source.records().filter(condition).exclude(deserialization_exception=None)
        groups = in_error.values("model_name", "deserialization_exception").annotate(
            count=Count("id"), last=Max("deserialization_error")
        )
        for group in groups.order_by():
            key = (group["model_name"], group["deserialization_exception"])
            example = in_error.filter(
                model_name=key[0], deserialization_exception=key[1], deserialization_error=group["last"]
            ).values_list("id", flat=True)[0]
            earlier = found[key].count if key in found else 0
            found[key] = FailureGroup(*key, earlier + group["count"], example, group["last"])
    return sorted(found.values(), key=lambda group: (-group.count, group.model_name, group.exception))
