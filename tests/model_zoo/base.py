"""Profile of the model zoo, and base class of its models."""

from __future__ import annotations

from morango.models import SyncableModel

PROFILE = "model_zoo"


class ZooModel(SyncableModel):
    """Syncable model with random ids within one partition."""

    morango_profile = PROFILE

    class Meta:
        abstract = True

    def calculate_source_id(self) -> str | None:
        return None

    def calculate_partition(self) -> str:
        return "model_zoo"
