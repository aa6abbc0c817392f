"""Equivalents of Kolibri's models and fields. See docs/how-to/declare-equivalents.md.

Saved as they are synced, nearly all of Kolibri's models do two things: they require that their dataset is
that of a row which they refer to, and that a progress lies in its range. Those of logs, attendance, lessons,
assignments and bookmarks do nothing else; they are nine in ten records. Memberships of groups require one of
the class as well.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytz
from django.db.models import Field
from kolibri.core.attendance.models import AttendanceRecord, AttendanceSession
from kolibri.core.auth.constants.collection_kinds import ADHOCLEARNERSGROUP, CLASSROOM, LEARNERGROUP
from kolibri.core.auth.models import Membership
from kolibri.core.bookmarks.models import Bookmark
from kolibri.core.exams.models import ExamAssignment, IndividualSyncableExam
from kolibri.core.fields import DateTimeTzField, JSONField
from kolibri.core.lessons.models import IndividualSyncableLesson, Lesson, LessonAssignment
from kolibri.core.logger.models import (
    AttemptLog,
    ContentSessionLog,
    ContentSummaryLog,
    ExamAttemptLog,
    ExamLog,
    MasteryLog,
    UserSessionLog,
)
from morango.models.core import SyncableModel

from morango_celery.equivalents import (
    Between,
    Convert,
    Equivalent,
    FieldEquivalent,
    NotFastPath,
    RowExists,
    Rule,
    SameAs,
    TargetIn,
    declare,
    declare_field,
)

OVERRIDES = ("save", "clean_fields")
CALLS = (
    "pre_save",
    "ensure_dataset",
    "infer_dataset",
    "cached_related_dataset_lookup",
    "get_related_dataset_cache_key",
    "kolibri.core.auth.models.DatasetCache",
)

INFERRED_BY: dict[type[SyncableModel], tuple[str, str]] = {
    AttemptLog: ("sessionlog", "44edc6509ba6b55e880a77861a10d9d791c01c9228ebdcf91031a517940eeddc"),
    ContentSessionLog: ("user", "44969746bc671b8d7b2165e0874b99b4998d58a3e53d3d8223268014a445a425"),
    ContentSummaryLog: ("user", "a3170bd2e9e6db57b460e4602506b451fc24cbc77f60b0f5e65113a53020b56e"),
    MasteryLog: ("user", "8973ed1f11f9019fd1f4f4eb43274a121daf4c37482ec12d111b72c1cc601d9d"),
    UserSessionLog: ("user", "7828542d9762cf8cd255cc4f5245755475b9ca9339dc38fdd211d043ecd35141"),
    ExamLog: ("user", "7828542d9762cf8cd255cc4f5245755475b9ca9339dc38fdd211d043ecd35141"),
    ExamAttemptLog: ("examlog", "8a8953a258e9ee1262d26ad5fc8365ed049271094d07bfd18010ac72d0ffcdbb"),
    AttendanceRecord: (
        "attendance_session",
        "4027b9bf68f88ce660775ff11e4cf520417e858e093b75cac7449e3d5b6461bc",
    ),
    Bookmark: ("user", "e9963da2012f5e8f5f2e7a4250290fb12e7b2e3ddd14c0df18db915e08234549"),
    IndividualSyncableLesson: ("user", "e9963da2012f5e8f5f2e7a4250290fb12e7b2e3ddd14c0df18db915e08234549"),
    IndividualSyncableExam: ("user", "e9963da2012f5e8f5f2e7a4250290fb12e7b2e3ddd14c0df18db915e08234549"),
}
"""Foreign key that a model's dataset is inferred by, and the hash of its code."""

IN_ONE_DATASET: dict[type[SyncableModel], tuple[tuple[str, ...], str]] = {
    AttendanceSession: (
        ("collection", "created_by"),
        "ed53f2632fafb6f64535f0630962dae0d32b709fcc6c6ab10260eeb7f068ba28",
    ),
    Lesson: (
        ("collection", "created_by"),
        "1aff2dab29058be4edfcf80a38999ccb58c1eb6a6dd1f1e323fe65c61c26ab0e",
    ),
    LessonAssignment: (
        ("lesson", "collection", "assigned_by"),
        "99027fdf56f8219085d7f7b9bbc7b6a597261fe3a5fb24ca07c33faadef989dc",
    ),
    ExamAssignment: (
        ("exam", "collection", "assigned_by"),
        "e760f43464b233add12a628c38bb686643c16dcae4d771368556b7df2d574af3",
    ),
}
"""Foreign keys to rows of a model's dataset, and the hash of its code. Nobody, or a superuser of another
dataset, as the creator is for that code."""

RANGES: dict[type[SyncableModel], Rule] = {
    ContentSessionLog: Between("progress", 0, math.inf),
    ContentSummaryLog: Between("progress", 0, 1.01),
}

MEMBERSHIP = Equivalent(
    OVERRIDES,
    (
        *CALLS,
        "validate_membership",
        "kolibri.core.auth.constants.collection_kinds.FACILITY",
        "kolibri.core.auth.constants.collection_kinds.LEARNERGROUP",
        "kolibri.core.auth.constants.collection_kinds.ADHOCLEARNERSGROUP",
    ),
    "c7e384bd772777282a822e32a6cf4e5c8c159937388c16f265d8f827be85fad1",
    (
        SameAs("dataset_id", "user"),
        SameAs("dataset_id", "collection"),
        TargetIn("collection", "kind", (CLASSROOM, LEARNERGROUP, ADHOCLEARNERSGROUP)),
        RowExists(
            (("collection_id", "collection.parent_id"), ("user_id", "user_id")),
            when=TargetIn("collection", "kind", (LEARNERGROUP, ADHOCLEARNERSGROUP)),
        ),
    ),
)
"""Equivalent of the code of memberships: a learner of a group is one of its class."""

MOMENT_CALLS = (
    "to_python",
    "get_prep_value",
    "get_db_prep_value",
    "db_type",
    "kolibri.core.fields.parse_timezonestamp",
    "kolibri.core.fields.create_timezonestamp",
    "kolibri.core.fields.date_time_format",
    "kolibri.core.fields.tz_format",
    "kolibri.core.fields.tz_regex",
    "kolibri.core.fields.db_storage_string",
)
DOCUMENT_CALLS = (
    "__init__",
    "to_python",
    "get_prep_value",
    "get_default",
    "jsonfield.fields.DEFAULT_DUMP_KWARGS",
    "jsonfield.fields.DEFAULT_LOAD_KWARGS",
    "jsonfield.encoder.JSONEncoder",
)
MOMENT_SHA256 = "e528d41036a16ce78ca7d96dd3f75bbdccfb8a04aa54088c10847a92f7ee2b5c"
DOCUMENT_SHA256 = "9a0b79fbd1666516c90725e111c4f3249a7218bbb5d3c2a9bc3ce60aef83312f"


def declare_all() -> None:
    """Declare the equivalents, in ``ready()`` of the plug-in."""
    for model, (foreign_key, sha256) in INFERRED_BY.items():
        ranges = (RANGES[model],) if model in RANGES else ()
        declare(model, Equivalent(OVERRIDES, CALLS, sha256, (SameAs("dataset_id", foreign_key), *ranges)))
    for model, (foreign_keys, sha256) in IN_ONE_DATASET.items():
        same = tuple(SameAs("dataset_id", foreign_key) for foreign_key in foreign_keys)
        declare(model, Equivalent(OVERRIDES, CALLS, sha256, same))
    declare(Membership, MEMBERSHIP)
    declare_field(DateTimeTzField, FieldEquivalent(_moments, MOMENT_CALLS, MOMENT_SHA256))
    declare_field(JSONField, FieldEquivalent(_documents, DOCUMENT_CALLS, DOCUMENT_SHA256))


MOMENT = re.compile(r"[1-9]\d{3}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\(([^)]+)\)", re.ASCII)
"""Text of a moment as `DateTimeTzField` stores it; others are for its own parser."""


def _moments(field: Field[Any, Any]) -> Convert | None:
    if field.validators or field.choices:
        return None
    zones: dict[str, bool] = {}

    def moments(values: Sequence[Any]) -> Sequence[Any]:
        for value in values:
            found = MOMENT.fullmatch(value) if type(value) is str else None
            if found is None or not (zones[found[1]] if found[1] in zones else _note(zones, found[1])):
                raise NotFastPath
            _require_moment(value[:26])
        return values

    return moments


def _note(zones: dict[str, bool], name: str) -> bool:
    """Note whether a time zone is known by exactly this name."""
    try:
        zones[name] = pytz.timezone(name).zone == name
    except pytz.UnknownTimeZoneError:
        zones[name] = False
    return zones[name]


def _require_moment(text: str) -> None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise NotFastPath from None
    if moment.year > 9998:  # in its own time zone it may be later than any that Python has
        raise NotFastPath


SHORT = 50
"""Length of texts that are remembered: most documents are empty ones."""


def _documents(field: Field[Any, Any]) -> Convert | None:
    if field.validators or field.choices:
        return None
    load, dump = field.load_kwargs, field.dump_kwargs  # type: ignore[attr-defined]  # jsonfield has no types
    blank, empty = field.blank, field.empty_values

    def document(text: object) -> str:
        if type(text) is not str:
            raise NotFastPath
        try:
            value = json.loads(text, **load)
            # Of a text in it, Kolibri's field asks again whether it is JSON
            if value is None or isinstance(value, str) or (not blank and value in empty):
                raise NotFastPath
            return json.dumps(value, **dump)
        except (ValueError, TypeError, RecursionError):
            raise NotFastPath from None

    remembered = lru_cache(maxsize=1_000)(document)

    def documents(values: Sequence[Any]) -> Sequence[Any]:
        return [
            remembered(value) if type(value) is str and len(value) < SHORT else document(value)
            for value in values
        ]

    return documents
