"""Breaking of a few records in the device's Store, so that they travel through the real sync."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from morango.models import Store

from worker.demo.school import EARLY_ATTEMPTS, School
from worker.school.models import SchoolModel

ABSENT_ID = "0" * 31 + "1"
"""An id that no record has."""


@dataclass(frozen=True)
class Broken:
    """A record that the server must not have as an app row, though the device has."""

    id: str
    model_name: str
    how: str
    """Its fault, for people."""


def spoil(school: School) -> list[Broken]:
    """Make records of the school invalid, each in a way of its own; they end up in error.

    None of them is referred to by another, but for one attempt that has feedback.
    """
    unused_learners = [school.learner(school.learners - 1), school.learner(school.learners - 2)]
    unused_lessons = [school.lesson(school.lessons - 1), school.lesson(school.lessons - 2)]
    attempts = [school.attempt(school.attempts - number) for number in range(1, 7)]
    with_feedback = school.attempt(EARLY_ATTEMPTS)
    feedback = school.feedback(EARLY_ATTEMPTS, with_feedback)
    return [
        _change(unused_learners[0], "its username is taken", username=school.learner(1).username),
        _change(unused_learners[1], "its unit is another school's", school_id=ABSENT_ID),
        _change(unused_lessons[0], "its title is too long", title="Fractions " * 30),
        _change(unused_lessons[1], "it opens at no point in time", opens_at="next Tuesday, Mars time"),
        _change(attempts[0], "its score is no number", score="nine of ten"),
        _change(attempts[1], "its learner does not exist", learner_id=ABSENT_ID),
        _change(attempts[2], "its answer holds a NUL character", answer="1\0/2"),
        _change(attempts[3], "its kind is unknown", kind="exam"),
        _change(attempts[4], "its time is missing", answered_at=None),
        _rewrite(attempts[5], "it is cut off in the middle", lambda text: text[: len(text) // 2]),
        _change(with_feedback, "its score is out of range", score=7.5),
        Broken(feedback.id, "feedback", "its attempt is broken"),
    ]


def orphan(school: School) -> Broken:
    """Let an attempt refer to the first learner, who is deleted: the deletion is propagated to it."""
    attempt = school.attempt(school.attempts - 7)
    return _change(attempt, "its learner is deleted", learner_id=school.learner(0).id)


def _change(record: SchoolModel, how: str, **values: Any) -> Broken:
    return _rewrite(record, how, lambda text: json.dumps({**json.loads(text), **values}))


def _rewrite(record: SchoolModel, how: str, change: Callable[[str], str]) -> Broken:
    row = Store.objects.get(id=record.id)
    row.serialized = change(row.serialized)
    row.save(update_fields=["serialized"])
    return Broken(record.id, record.morango_model_name, how)
