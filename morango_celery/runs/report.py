"""What a run could not deserialize, grouped for reading."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count

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

    Cost: one query for the groups and one per group for its example. While a run goes on, what it takes in
    between is left out.
    """
    source = StoreModelSource(run.profile, run.sync_filter, exclude_erroring=False)
    found: dict[tuple[str, str], FailureGroup] = {}
    for condition in source.prefix_conditions():
        in_error = source.records().filter(condition).exclude(deserialization_exception=None)
        groups = in_error.values_list("model_name", "deserialization_exception").annotate(count=Count("id"))
        for model_name, exception, count in groups.order_by():
            group = in_error.filter(model_name=model_name, deserialization_exception=exception)
            example = (
                group.order_by("-deserialization_error").values_list("id", "deserialization_error").first()
            )
            if example is None:
                continue
            key = (model_name, exception)
            earlier = found[key].count if key in found else 0
            found[key] = FailureGroup(*key, earlier + count, *example)
    return sorted(found.values(), key=lambda group: (-group.count, group.model_name, group.exception))
