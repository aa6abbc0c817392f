"""Report of the records that a run could not deserialize, grouped for reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count
from django.db.models.functions import Left

from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.quarantine import QUARANTINED
from morango_celery.models import Run
from morango_celery.runs.roots import Root, roots_by_cause

EXAMPLE_CHARACTERS = 1000
"""Length up to which an error is read: the whole may have megabytes."""


@dataclass(frozen=True)
class FailureGroup:
    """The records of one model that are in error with one exception."""

    model_name: str
    exception: str
    """Path of the exception's class."""
    count: int
    example_id: str
    example_error: str
    roots: Sequence[Root] = ()
    """Records because of which those of the group fail, as far as their errors name any."""

    @property
    def title(self) -> str:
        """The exception's path, with a hint if later runs leave such records alone."""
        return f"{self.exception} (quarantined)" if self.exception == QUARANTINED else self.exception


def failures(run: Run) -> list[FailureGroup]:
    """Return the groups of dirty records in error under the run's filter, the largest first.

    Records that a running run cleans between the two queries are left out.
    Cost: one query for the groups, and one per group for its example; if there are any, those of
        `roots_by_cause`.
    """
    source = StoreModelSource(run.profile, run.sync_filter)
    in_error = source.records().filter(source.condition).exclude(deserialization_exception=None)
    counted = in_error.values_list("model_name", "deserialization_exception").annotate(count=Count("id"))
    groups = list(counted.order_by())
    roots = roots_by_cause(in_error) if groups else {}
    found = []
    for model_name, exception, count in groups:
        group = in_error.filter(model_name=model_name, deserialization_exception=exception)
        begins = group.annotate(begins=Left("deserialization_error", EXAMPLE_CHARACTERS))
        example = begins.order_by("-begins").values_list("id", "begins").first()
        if example is not None:
            of_group = roots.get((run.profile, model_name, exception), ())
            example_id, begin = example
            found.append(FailureGroup(model_name, exception, count, example_id, begin, of_group))
    return sorted(found, key=lambda group: (-group.count, group.model_name, group.exception))
