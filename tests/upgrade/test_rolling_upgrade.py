"""An upgrade without a stop, and back again, while a device and commands sync all the while."""

from __future__ import annotations

import pytest

from tests.support.waiting import until
from tests.upgrade import newer
from tests.upgrade.project import PATIENT_SECONDS, Project, Version, present, states, unfinished
from tests.upgrade.syncs import Syncs

pytestmark = [pytest.mark.slow, pytest.mark.needs_postgresql, pytest.mark.timeout(1800)]

REQUEUED = "goes back to the queue"


@pytest.fixture(params=["released and present", "present and newer"])
def versions(request: pytest.FixtureRequest) -> tuple[Version, Version]:
    """Return two neighbouring versions, the older one first."""
    if request.param == "present and newer":
        return present(), request.getfixturevalue("newer_version")
    return request.getfixturevalue("released_version"), present()


def test_syncs_go_on_while_a_project_is_upgraded_and_downgraded(
    versions: tuple[Version, Version], project: Project, syncs: Syncs
) -> None:
    old, new = versions
    installed = [old]

    # Given a project of the older version, and syncs by its server and by its commands
    project.command(old, "migrate", "--verbosity=0")
    old_worker = project.worker(old)
    old_server, old_url = project.server(old)
    syncs.begin(old_url)
    with syncs.commands_of(lambda: tuple(installed)) as wait_for_commands:
        syncs.wait_for_pushes(old_url)

        # When it migrates, then the older version goes on with the new tables
        project.command(new, "migrate", "--verbosity=0")
        syncs.wait_for_pushes(old_url)
        wait_for_commands(2)

        # ... and when workers of the newer version come first, then its web processes, all of them sync
        new_worker = project.worker(new)
        syncs.wait_for_pushes(old_url)
        new_server, new_url = project.server(new)
        syncs.push_to(old_url, new_url)
        installed.append(new)
        syncs.wait_for_pushes(old_url, new_url)
        wait_for_commands(4)

        # ... and a worker of either version that is killed in the middle costs nothing
        for version, worker in ((old, old_worker), (new, new_worker)):
            worker.kill()
            replaced = project.worker(version)
            if version is old:
                old_worker = replaced
            else:
                new_worker = replaced
            syncs.wait_for_pushes(old_url, new_url, number=1)

        # When the older version is gone, then the newer one goes on alone
        installed.remove(old)
        syncs.push_to(new_url)
        wait_for_commands(1)
        old_server.stop()
        old_worker.stop(PATIENT_SECONDS)
        syncs.wait_for_pushes(new_url)
        wait_for_commands(2)

        # When the project goes back: the older version's processes first
        old_worker = project.worker(old)
        old_server, old_url = project.server(old)
        syncs.push_to(old_url, new_url)
        installed.append(old)
        syncs.wait_for_pushes(old_url, new_url)
        wait_for_commands(4)

        # ... then the newer version's web processes and commands end, and its workers once its runs are done
        installed.remove(new)
        syncs.push_to(old_url)
        wait_for_commands(2)
        new_server.stop()
        until(
            lambda: "left to it" not in project.diagnosis(old),
            "no run is left to it",
            PATIENT_SECONDS,
        )
        new_worker.stop(PATIENT_SECONDS)

        # ... then the older version goes on alone, on the newer version's tables
        syncs.wait_for_pushes(old_url)
        wait_for_commands(2)
    syncs.end()

    # Then each run has ended well, each record is deserialized, and no process had an error
    until(lambda: not unfinished(), "all runs ended", PATIENT_SECONDS)
    assert set(states()) == {"completed"}, states()
    assert "open" not in states("batch")
    syncs.assert_all_are_deserialized()
    for name, log in project.logs().items():
        before, traceback, after = log.partition("Traceback")
        assert not traceback, f"{name}: {before[-1000:]}{traceback}{after[:5000]}"

    # ... and the older version has met what it doesn't know, where there was such a thing
    requeued = [
        log.count(REQUEUED) for name, log in project.logs("worker").items() if name.startswith(old.name)
    ]
    if new.name == "newer":
        assert newer.STATE_OF_BATCHES in states("batch")
        assert any(requeued)
        assert max(requeued) <= 5  # one for each kind of message
    else:
        assert not any(requeued)
