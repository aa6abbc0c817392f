"""A newer version that ends in the middle of its work, and doesn't come back."""

from __future__ import annotations

import pytest
from morango.models import Store

from tests.support.waiting import until
from tests.upgrade import newer
from tests.upgrade.project import PATIENT_SECONDS, Project, Version, present, states, unfinished
from tests.upgrade.syncs import Syncs
from worker.school.models import PROFILE

pytestmark = [pytest.mark.slow, pytest.mark.needs_postgresql, pytest.mark.timeout(600)]


def test_runs_of_a_version_that_is_gone_wait_untouched_until_an_operator_cancels_them(
    project: Project, syncs: Syncs, newer_version: Version
) -> None:
    # Given runs that the newer version has asked for, and none of its workers
    project.command(newer_version, "migrate", "--verbosity=0")
    schools = [syncs.arrive() for _ in range(2)]
    for school_id in schools:
        project.command(newer_version, "deserialize", f"--profile={PROFILE}", "--filter", school_id)
    assert states() == {newer.STATE_OF_RUNS: 2}

    # When the present version's workers get their messages, then these go round, and other work is done
    worker = project.worker(present())
    worker.wait_for_log("goes back to the queue", PATIENT_SECONDS)
    syncs.deserialize_by(present())
    assert states() == {newer.STATE_OF_RUNS: 2, "completed": 1}
    assert Store.objects.filter(dirty_bit=True, partition__startswith=schools[0]).exists()

    # ... and the doctor names the runs
    numbers = [str(number) for number, state in unfinished() if state == newer.STATE_OF_RUNS]
    assert f"left to it: {', '.join(numbers)}" in project.diagnosis(present())

    # When an operator cancels them, then the next runs deserialize their records
    for number in numbers:
        project.command(present(), "cancel_run", number, "--of-newer-version")
    for school_id in schools:
        project.command(present(), "deserialize", f"--profile={PROFILE}", "--filter", school_id, "--wait")
    until(lambda: not unfinished(), "all runs ended", PATIENT_SECONDS)
    assert states() == {"cancelled": 2, "completed": 3}
    assert not Store.objects.filter(dirty_bit=True).exists()
    assert "Traceback" not in worker.log()


def test_newer_version_that_comes_back_goes_on_with_its_runs(
    project: Project, syncs: Syncs, newer_version: Version
) -> None:
    # Given a run of the newer version that waits, and a worker of the present one that requeues its message
    project.command(newer_version, "migrate", "--verbosity=0")
    school_id = syncs.arrive()
    project.command(newer_version, "deserialize", f"--profile={PROFILE}", "--filter", school_id)
    worker = project.worker(present())
    worker.wait_for_log("goes back to the queue", PATIENT_SECONDS)

    # When a worker of the newer version comes, then it carries the run out beside the older one
    project.worker(newer_version)
    until(lambda: not unfinished(), "ended", PATIENT_SECONDS)
    assert states() == {"completed": 1}
    assert set(states("batch")) == {newer.STATE_OF_BATCHES}
    assert not Store.objects.filter(dirty_bit=True).exists()
