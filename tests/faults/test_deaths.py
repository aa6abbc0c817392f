"""Workers are killed between any two of a run's statements, COMMITs and messages, and in any statement.

Each run is of a school of its own, with every fate in one batch, and dies at one point; so one test has as
many runs as a run has points. The list of points is that of a run which was watched before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
from django.db import connection

from morango_celery import serialize_into_store
from morango_celery.messaging.dispatch import CeleryDispatch
from morango_celery.models import Run
from tests.faults.deaths import plan
from tests.faults.deaths.plan import Death, Event
from tests.support.processes import LoggedProcess
from tests.support.schools import MakeSchool, School
from tests.support.waiting import until
from tests.support.workers import StartWorker
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs_postgresql]


_events: list[Event] = []


@pytest.fixture
def start_worker(celery_worker_process: StartWorker) -> Callable[..., LoggedProcess]:
    def start(concurrency: int) -> LoggedProcess:
        return celery_worker_process(
            concurrency,
            DJANGO_SETTINGS_MODULE="tests.faults.settings",
            MAX_ATTEMPTS="100",  # of a batch whose worker is always killed for another's sake
            STALLED_AFTER_SECONDS="5",  # so that it looks for lost work three times a second
            VISIBILITY_TIMEOUT="3",
        )

    return start


@pytest.fixture
def events(make_school: MakeSchool, start_worker: Callable[..., LoggedProcess]) -> list[Event]:
    """Return the events of a run's tasks, in a process that has done it before."""
    if not _events:
        worker = start_worker(1)
        for number in range(2):
            if number:
                serialize_into_store(PROFILE)  # work of a run that only the next one finds
            school = make_school()
            run = school.new_run()
            if number:
                plan.record(run.pk)
            CeleryDispatch().start(run)
            until(partial(all_have_ended, [run]), "done")
            school.assert_intact(run)
        worker.stop()
        _events.extend(plan.recorded())
    assert {event.task for event in _events} == {"start_run", "deserialize_batch 2"}
    return _events


def all_have_ended(runs: list[Run]) -> bool:
    return not Run.objects.filter(pk__in=[run.pk for run in runs], finalized=False).exists()


def decisive(event: Event) -> bool:
    """Return the events that make work visible to others; all work between two of them is undone together."""
    return event.what in ("COMMIT", "end of the task") or event.what.startswith("message")


def runs_that_die(
    make_school: MakeSchool, events: list[Event], *, whole_worker: bool = False, inside: bool = False
) -> list[tuple[School, Run, Death]]:
    """Run a school of its own for each of the events, in the middle of which its worker is to die."""
    found = []
    for event in events:
        school = make_school()
        run = school.new_run()
        death = Death(event.task, event.number, whole_worker, inside)
        plan.plan(run.pk, death)
        found.append((school, run, death))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as autovacuum would, in a minute
    for _, run, _ in found:
        CeleryDispatch().start(run)
    return found


def assert_survived(dying: list[tuple[School, Run, Death]]) -> None:
    """Each run died where it was to die, and nothing came of that."""
    fired = [death for death, _ in plan.fired()]
    assert sorted(map(str, fired)) == sorted(str(death) for _, _, death in dying)
    for school, run, _ in dying:
        school.assert_intact(run)


@pytest.mark.timeout(900)
def test_death_of_a_process_at_any_point_loses_nothing(
    events: list[Event],
    make_school: MakeSchool,
    start_worker: Callable[..., LoggedProcess],
    exhaustive: bool,
) -> None:
    # Given a run for each point at which a process of the pool may die
    chosen = (
        events
        if exhaustive
        else [e for i, e in enumerate(events) if i % 20 == 3 or e.what == "end of the task"]
    )
    dying = runs_that_die(make_school, chosen)

    # When a worker carries them out
    worker = start_worker(3)
    worker.wait_until(lambda: all_have_ended([run for _, run, _ in dying]), "done", 600)

    # Then every run died once, and no record noticed
    assert_survived(dying)
    killed = re.findall(r"exited with 'signal 9", worker.log())
    assert len(killed) == len(dying)
    # ... and no message was more than one attempt of its batch
    for _, run, death in dying:
        attempts = sum(run.batches.values_list("attempts", flat=True))
        assert 2 <= attempts <= plan.deliveries(run.pk), death


@pytest.mark.timeout(900)
def test_death_during_a_statement_loses_nothing(
    events: list[Event],
    make_school: MakeSchool,
    start_worker: Callable[..., LoggedProcess],
    exhaustive: bool,
) -> None:
    # Given a run for each statement, which the server goes on with when its client is gone
    statements = [e for e in events if e.is_statement]
    dying = runs_that_die(make_school, statements if exhaustive else statements[5::15], inside=True)

    # When a worker carries them out
    worker = start_worker(3)
    worker.wait_until(lambda: all_have_ended([run for _, run, _ in dying]), "done", 600)

    # Then every run died once, and no record noticed
    assert_survived(dying)
    killed = re.findall(r"exited with 'signal 9", worker.log())
    assert len(killed) == len(dying)


@pytest.mark.timeout(900)
def test_death_of_a_whole_worker_loses_nothing(
    events: list[Event],
    make_school: MakeSchool,
    start_worker: Callable[..., LoggedProcess],
    exhaustive: bool,
) -> None:
    # Given runs that take their worker, with all that it does, along
    chosen = [e for i, e in enumerate(events) if decisive(e) or i % 15 == 0]
    dying = runs_that_die(make_school, chosen if exhaustive else chosen[2::14], whole_worker=True)
    runs = [run for _, run, _ in dying]

    # When there is a new one whenever one is gone
    workers = 0
    while not all_have_ended(runs):
        worker = start_worker(1)  # with two, the work of one may end before its turn to die has come
        workers += 1
        until(lambda worker=worker: not worker.is_running or all_have_ended(runs), "done", 60)  # type: ignore[misc]

    # Then every run completes, and no record noticed
    assert_survived(dying)
    assert workers >= len(dying)
