"""Repair of collisions of picture passwords: two devices gave one to different learners; the one here gets
another.

Kolibri's `PicturePasswordCollisionOperation` does so after it has deserialized, and then deserializes the
failed records once more. In a run, it is done when all records have been tried once. The users that
failed, and records that depend on them, are retried then.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from kolibri.core.auth.constants.morango_sync import PROFILE_FACILITY_DATA
from kolibri.core.auth.constants.picture_passwords import PICTURE_PASSWORD_SET
from kolibri.core.auth.models import Facility, FacilityUser
from kolibri.core.auth.utils.picture_passwords import (
    are_picture_passwords_exhausted,
    get_all_valid_sequences,
    get_assigned_sequences,
)
from morango.models.core import Store

from morango_celery.deserialization import StoreModelSource
from morango_celery.models import Run
from morango_celery.upstream import exception_path

logger = logging.getLogger(__name__)


def give_way(run: Run, **kwargs: Any) -> None:
    """Take picture passwords that records in error claim from the learners who have them.

    Receives `first_pass_failed`, whose transaction it is in: done once for a run, whoever dies.
    Cost: one query; some for each collision.
    """
    if run.profile != PROFILE_FACILITY_DATA:
        return
    for dataset_id, passwords in _claimed(run).items():
        holders = FacilityUser.objects.filter(dataset_id=dataset_id, picture_password__in=passwords)
        _make_way(dataset_id, list(holders.select_for_update(of=("self",)).order_by("id")))


def _claimed(run: Run) -> Mapping[str, set[str]]:
    """Return the picture passwords, by dataset, of users that violate a constraint, which need not be that
    of the password."""
    claimed = defaultdict(set)
    violating = {"deserialization_exception": exception_path(IntegrityError()), "deleted": False}
    failed = StoreModelSource(run.profile, run.sync_filter, models=[FacilityUser])
    for records in failed.querysets():
        for partition, serialized in records.filter(**violating).values_list("partition", "serialized"):
            password = json.loads(serialized).get("picture_password")
            if password and isinstance(password, str):
                dataset_id, _, _ = partition.partition(":")
                claimed[dataset_id].add(password)
    return claimed


def _make_way(dataset_id: str, holders: list[Any]) -> None:
    if not holders:
        return
    waiting = set(
        Store.objects.filter(id__in=[holder.id for holder in holders], dirty_bit=True)
        .exclude(deserialization_error=None)
        .char_ids_list()
    )
    free = _free_passwords(dataset_id)
    for holder in holders:
        if holder.id in waiting:
            # Its own record is tried again, too, and brings a password; a local edit would win over that
            FacilityUser.objects.filter(pk=holder.pk).update(update_dirty_bit_to=None, picture_password=None)
        else:
            _give_another(holder, free)
    logger.info(
        "%s users of facility data %s gave way to synced ones with the same picture passwords.",
        len(holders),
        dataset_id,
    )


def _free_passwords(dataset_id: str) -> list[str]:
    if are_picture_passwords_exhausted(dataset_id):
        return []
    facility = Facility.objects.get(dataset_id=dataset_id)
    return list(get_all_valid_sequences(PICTURE_PASSWORD_SET) - get_assigned_sequences(facility))


def _give_another(holder: Any, free: list[str]) -> None:
    """Give the learner another picture password.

    :param free: candidates, which may be somebody's by now, or of somebody whom Kolibri doesn't count
    """
    while free:
        holder.picture_password = free.pop()
        with contextlib.suppress(IntegrityError), transaction.atomic():
            holder.save()
            return
    holder.picture_password = None
    holder.save()
