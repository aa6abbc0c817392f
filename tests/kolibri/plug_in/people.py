"""Acts of people on a server and on a device: ``python -m tests.kolibri.plug_in.people ACT ...``.

All of it by Kolibri's own models. Imports Kolibri only when it is run, for that needs its environment.
"""

from __future__ import annotations

import datetime
import sys
import uuid
from collections.abc import Callable
from typing import Any

COVETED = "5.6.7"
"""The picture password that server and device give to different learners."""

ATTEMPTS = 300
"""Number of attempts at the lesson's exercise by the learner who is new on the device; these
records wait for the learner's."""

BESIDE_ATTEMPTS = 5
"""Number of records of an exercise that was begun, besides attempts."""

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)


def found() -> None:
    """Make a class with a coach on the server, and learners with picture passwords."""
    from kolibri.core.auth.models import Classroom, Facility

    facility = Facility.objects.get()
    dataset = facility.dataset
    dataset.learner_can_edit_password = False
    dataset.learner_can_login_with_no_password = True
    dataset.picture_password_settings = {"icon_style": "standard", "show_icon_text": True}
    dataset.save()
    classroom = Classroom.objects.create(name="Class", parent=facility)
    coach = user("coach", None)
    facility.add_coach(coach)
    classroom.add_coach(coach)
    for number in range(1, 7):
        classroom.add_member(user(f"learner{number}", f"1.2.{number + 2}"))


def meanwhile() -> None:
    """Give somebody on the server the picture password, after the device has left."""
    from kolibri.core.auth.models import Classroom

    Classroom.objects.get().add_member(user("holder", COVETED))


def away() -> None:
    """Give somebody else on the device the same picture password, let two learners swap theirs, and all go
    on."""
    from kolibri.core.auth.models import Classroom, FacilityUser, LearnerGroup
    from kolibri.core.lessons.models import Lesson, LessonAssignment

    classroom = Classroom.objects.get()
    coach = FacilityUser.objects.get(username="coach")
    new = user("claimant", COVETED)
    classroom.add_member(new)
    group = LearnerGroup.objects.create(name="Group", parent=classroom)
    group.add_learner(new)
    exercise = resource()
    lesson = Lesson.objects.create(
        title="Lesson", collection=classroom, created_by=coach, is_active=True, resources=[exercise]
    )
    LessonAssignment.objects.create(lesson=lesson, collection=classroom, assigned_by=coach)
    work(new, exercise, ATTEMPTS)

    classroom.add_member(user("sound", "6.7.8"))
    learners = {learner.username: learner for learner in FacilityUser.objects.all()}
    work(learners["learner1"], resource(), attempts=20)
    attend(classroom, coach, [learners["learner1"], learners["learner2"]])
    swap(learners["learner1"], learners["learner2"])
    learners["learner3"].full_name = "Renamed"
    learners["learner3"].save()
    learners["learner4"].date_deleted = NOW
    learners["learner4"].save()
    classroom.remove_member(learners["learner5"])


def practised(records: str) -> None:
    """Begin an exercise as a learner on the device, with so many records."""
    from kolibri.core.auth.models import FacilityUser

    work(FacilityUser.objects.get(username="learner1"), resource(), int(records) - BESIDE_ATTEMPTS)


def attended() -> None:
    """Let the new learner on the device attend; only a foreign key refers to them."""
    from kolibri.core.auth.models import Classroom, FacilityUser

    coach, new = (FacilityUser.objects.get(username=name) for name in ("coach", "claimant"))
    attend(Classroom.objects.get(), coach, [new])


def retry_errors() -> None:
    """Deserialize the records in error on a server once more, as Morango does."""
    from kolibri.core.auth.constants.morango_sync import PROFILE_FACILITY_DATA
    from morango.sync.controller import MorangoProfileController

    MorangoProfileController(PROFILE_FACILITY_DATA).deserialize_from_store()


def user(username: str, picture_password: str | None) -> Any:
    from kolibri.core.auth.models import Facility, FacilityUser

    return FacilityUser.objects.create(
        username=username,
        full_name=username.title(),
        facility=Facility.objects.get(),
        password="NOT_SPECIFIED",
        picture_password=picture_password,
    )


def resource() -> dict[str, str]:
    return {name: uuid.uuid4().hex for name in ("contentnode_id", "content_id", "channel_id")}


def work(learner: Any, exercise: dict[str, str], attempts: int) -> None:
    """So many attempts at an exercise, and all that an attempt needs."""
    from kolibri.core.bookmarks.models import Bookmark
    from kolibri.core.logger.models import (
        AttemptLog,
        ContentSessionLog,
        ContentSummaryLog,
        MasteryLog,
        UserSessionLog,
    )

    content = {"content_id": exercise["content_id"], "channel_id": exercise["channel_id"], "kind": "exercise"}
    times = {"start_timestamp": NOW, "end_timestamp": NOW + datetime.timedelta(minutes=5)}
    UserSessionLog.objects.create(user=learner, start_timestamp=NOW, last_interaction_timestamp=NOW)
    session = ContentSessionLog.objects.create(user=learner, time_spent=60, **content, **times)
    summary = ContentSummaryLog.objects.create(user=learner, progress=0.5, **content, **times)
    mastery = MasteryLog.objects.create(
        user=learner,
        summarylog=summary,
        mastery_level=1,
        mastery_criterion={"type": "m_of_n", "m": 5, "n": 5},
        **times,
    )
    Bookmark.objects.create(user=learner, contentnode_id=exercise["contentnode_id"])
    for number in range(attempts):
        AttemptLog.objects.create(
            user=learner,
            item=uuid.uuid4().hex,
            masterylog=mastery,
            sessionlog=session,
            correct=number % 2,
            answer={"number": number},
            interaction_history=[],
            time_spent=number,
            **times,
        )


def attend(classroom: Any, coach: Any, learners: list[Any]) -> None:
    from kolibri.core.attendance.models import AttendanceRecord, AttendanceSession

    session = AttendanceSession.objects.create(collection=classroom, created_by=coach)
    for learner in learners:
        AttendanceRecord.objects.create(attendance_session=session, user=learner, present=True)


def swap(one: Any, other: Any) -> None:
    passwords = other.picture_password, one.picture_password
    for learner, password in ((one, None), (other, None), (one, passwords[0]), (other, passwords[1])):
        learner.picture_password = password
        learner.save()


ALL: tuple[Callable[..., None], ...] = (found, meanwhile, away, practised, attended, retry_errors)
ACTS = {act.__name__: act for act in ALL}

if __name__ == "__main__":
    from kolibri.utils.main import initialize

    initialize(skip_update=True)
    ACTS[sys.argv[1]](*sys.argv[2:])
