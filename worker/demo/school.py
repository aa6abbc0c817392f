"""Records of the device's school, computed from their numbers, so that none is kept in memory."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import TypeVar

from django.db import transaction
from morango.models import SyncableModel

from worker.school.models import Attempt, Feedback, Learner, Lesson, SchoolModel, Unit

CHUNK_RECORDS = 2000

EARLY_UNITS = 6
EARLY_LEARNERS = 2
EARLY_LESSONS = 1
EARLY_ATTEMPTS = 4
EARLY_RECORDS = EARLY_UNITS + EARLY_LEARNERS + EARLY_LESSONS + EARLY_ATTEMPTS

WITHOUT_ATTEMPTS = 2
"""Number of last learners, and of last lessons, without attempts: these can be broken alone."""

MODELS = (Unit, Learner, Lesson, Attempt, Feedback)
"""The school's models, referenced ones first."""

_FIRST_DAY = datetime.datetime(2026, 1, 5, 8, tzinfo=datetime.UTC)
_NAMES = ("Amina Diallo", "Zoë Müller", "Nguyễn Văn An", "José  Peña", "Ngozi Okafor", "李 明", "Åsa Straße")

Record = TypeVar("Record", bound=SchoolModel)


class School:
    """School: a tree of units with learners and lessons, the learners' attempts, and feedback on these."""

    def __init__(self, school_id: str, records: int) -> None:
        """
        :param school_id: id of the school's root certificate
        :param records: how many `records` yields, about `FEWEST_RECORDS` at least
        """
        self.id = school_id
        self.size = records
        self.units = EARLY_UNITS + records // 100
        self.learners = EARLY_LEARNERS + max(4, records * 4 // 100)
        self.lessons = EARLY_LESSONS + max(4, records * 5 // 100)
        self.feedbacks = records * 5 // 100
        others = self.units + self.learners + self.lessons + self.feedbacks
        self.attempts = records + EARLY_RECORDS - others
        self._partitions: dict[type[SchoolModel], str] = {
            Unit: Unit(school_id=school_id).calculate_partition(),
            Lesson: Lesson(school_id=school_id).calculate_partition(),
        }
        # An attempt needs its learner's partition; the attempts of a learner are neighbours.
        self._cached_learner = lru_cache(maxsize=64)(self.learner)

    def early_records(self) -> Iterator[SchoolModel]:
        """Yield the records of an earlier sync: a few units, two learners, the first one's attempts."""
        for number in range(EARLY_UNITS):
            yield self.unit(number)
        for number in range(EARLY_LEARNERS):
            yield self.learner(number)
        for number in range(EARLY_LESSONS):
            yield self.lesson(number)
        for number in range(EARLY_ATTEMPTS):
            yield self.attempt(number)

    def records(self) -> Iterator[SchoolModel]:
        """Yield all other records, each after its targets. Feedback follows its attempt."""
        for number in range(EARLY_UNITS, self.units):
            yield self.unit(number)
        for number in range(EARLY_LEARNERS, self.learners):
            yield self.learner(number)
        for number in range(EARLY_LESSONS, self.lessons):
            yield self.lesson(number)
        for number in range(EARLY_ATTEMPTS, self.attempts):
            attempt = self.attempt(number)
            yield attempt
            if number < EARLY_ATTEMPTS + self.feedbacks:
                yield self.feedback(number, attempt)

    def unit(self, number: int) -> Unit:
        parent_id = self._id(Unit, (number - 1) // 10) if number else None
        name = f"Class {number}" if number else "School at the Lake"
        return _identified(Unit(school_id=self.id, parent_id=parent_id, name=name), number)

    def learner(self, number: int) -> Learner:
        name = f"{_NAMES[number % len(_NAMES)]} {number}"
        learner = Learner(
            school_id=self.id,
            unit_id=self._id(Unit, number % self.units),
            username=f"learner{number}-{self.id[:6]}",
            full_name=name,
            search_name=" ".join(name.casefold().split()),  # as save() would
            birth_year=2005 + number % 15 if number % 9 else None,
        )
        return _identified(learner, number)

    def lesson(self, number: int) -> Lesson:
        opens_at = _FIRST_DAY + datetime.timedelta(hours=number) if number % 3 else None
        lesson = Lesson(
            school_id=self.id,
            unit_id=self._id(Unit, number % self.units),
            title=f"Lesson {number}: fractions",
            opens_at=opens_at,
        )
        return _identified(lesson, number)

    def attempt(self, number: int) -> Attempt:
        """Return an attempt. The first few are the first learner's, the others are of all but the last."""
        learner_number = 0
        if number >= EARLY_ATTEMPTS:
            among = self.learners - WITHOUT_ATTEMPTS - 1
            learner_number = 1 + number * among // self.attempts
        lesson_number = EARLY_LESSONS + number % (self.lessons - WITHOUT_ATTEMPTS - EARLY_LESSONS)
        in_lesson = number >= EARLY_ATTEMPTS and number % 7
        attempt = Attempt(
            learner=self._cached_learner(learner_number),
            lesson_id=self._id(Lesson, lesson_number) if in_lesson else None,
            kind=Attempt.Kind.values[number % 3],
            score=number % 11 / 10,
            # Morango's JSON has times in milliseconds.
            answered_at=_FIRST_DAY + datetime.timedelta(minutes=number, milliseconds=number % 1000),
            answer=f"{number}\n÷ {number + 1}",
        )
        return _identified(attempt, number)

    def feedback(self, number: int, attempt: Attempt) -> Feedback:
        return _identified(Feedback(attempt=attempt, text=f"Well done, no. {number}!"), number)

    def _id(self, model: type[SchoolModel], number: int) -> str:
        """Return the id of a unit or lesson, without building one."""
        name = model.morango_model_name
        record_id: str = model.compute_namespaced_id(self._partitions[model], _source_id(name, number), name)
        return record_id


def _source_id(model_name: str, number: int) -> str:
    return f"{model_name}-{number}"


def _identified(record: Record, number: int) -> Record:
    """Return the record with id, source id and partition, as Morango computes them when it saves one."""
    record._morango_source_id = _source_id(record.morango_model_name, number)
    record.id = record.calculate_uuid()
    return record


def create(records: Iterator[SchoolModel]) -> Iterator[int]:
    """Write the records as app rows, `CHUNK_RECORDS` in a transaction.

    :returns: the number of written records, after each transaction
    """
    written = 0
    while chunk := list(islice(records, CHUNK_RECORDS)):
        with transaction.atomic():
            for model in MODELS:
                _insert(model, [record for record in chunk if isinstance(record, model)])
        written += len(chunk)
        yield written


def _insert(model: type[SyncableModel], records: list[SchoolModel]) -> None:
    model.objects.bulk_create(records)
