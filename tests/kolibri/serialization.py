"""Comparison of Morango's serialization with ours on the rows of a deserialization: both must have the same
result.

Each function starts from the same rows, in a transaction that is rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from django.db import transaction
from django.test import override_settings
from morango.models.certificates import Filter
from morango.models.core import DeletedModels, InstanceIDModel, RecordMaxCounter, Store
from morango.registry import syncable_models
from morango.sync.operations import _serialize_into_store

from morango_celery.serialization import serialize_into_store
from tests.kolibri.compare import STORE
from tests.support.differences import differences
from tests.support.dump import Tables, dump

MAX_DIFFERENCES = 20


class _RollBack(Exception):  # noqa: N818  (not an error)
    pass


def compare(profile: str) -> dict[str, dict[str, Any]]:
    """Serialize all app rows of a profile as new ones, as edited ones, and some of them under a filter.

    :return: by what was compared, the ``differences`` in words, and how many records of each model were
        serialized (``models``)
    """
    InstanceIDModel.get_or_create_current_instance()  # whose id both implementations must have
    with override_settings(MORANGO_TEST_POSTGRESQL=True):  # which allows an open transaction
        return {
            name: _beside_each_other(profile, arrange)
            for name, arrange in {"new": _new, "edited": _edited, "filtered": _filtered}.items()
        }


def _beside_each_other(profile: str, arrange: Callable[[str], Filter | None]) -> dict[str, Any]:
    morango, ours = (
        _serialized(engine, profile, arrange) for engine in (_serialize_into_store, serialize_into_store)
    )
    found = map(str, differences(morango, ours))
    models: dict[str, int] = {}
    here = InstanceIDModel.get_or_create_current_instance()[0].id
    for row in ours[STORE].values():
        if row["last_saved_instance"] == here:
            models[str(row["model_name"])] = models.get(str(row["model_name"]), 0) + 1
    return {"differences": list(islice(found, MAX_DIFFERENCES)), "models": models}


def _serialized(engine: Callable[..., None], profile: str, arrange: Callable[[str], Filter | None]) -> Tables:
    tables: Tables = {}
    with suppress(_RollBack), transaction.atomic():
        sync_filter = arrange(profile)
        engine(profile, sync_filter)
        tables = dump()
        raise _RollBack
    return tables


def _new(profile: str) -> None:
    """App rows of which the Store knows nothing."""
    RecordMaxCounter.objects.all().delete()
    Store.objects.all().delete()
    DeletedModels.objects.all().delete()
    _make_dirty(profile)


def _edited(profile: str) -> None:
    """App rows of which the Store has other values, and some also unknown ones, conflicts, or deletions."""
    _make_dirty(profile)
    by_model: dict[str, list[Store]] = {}
    for row in Store.objects.order_by("id"):
        by_model.setdefault(row.model_name, []).append(row)
    for rows in by_model.values():
        readable = [row.serialized for row in rows if _is_object(row.serialized)] or ["{}"]
        for number, row in enumerate(rows):
            row.serialized = readable[(number + 1) % len(readable)]
            if number % 4 == 1:
                row.serialized = json.dumps({"unknown": [1, "ä"], **json.loads(row.serialized)})
            row.dirty_bit = number % 3 == 0
            row.deleted = number % 5 == 0
            row.conflicting_serialized_data = '{"earlier": 1}\n' * (number % 2)
        Store.objects.bulk_update(
            rows, ["serialized", "dirty_bit", "deleted", "conflicting_serialized_data"], batch_size=200
        )


def _filtered(profile: str) -> Filter:
    """Serialize edited rows, but only those in some of the partitions."""
    _edited(profile)
    partitions = sorted(set(Store.objects.values_list("partition", flat=True)))
    return Filter("\n".join(partitions[len(partitions) // 3 :: 2]))


def _make_dirty(profile: str) -> None:
    for model in syncable_models.get_models(profile):
        model.syncing_objects.all().update(update_dirty_bit_to=True)


def _is_object(text: str) -> bool:
    with suppress(ValueError):
        return isinstance(json.loads(text), Mapping)
    return False
