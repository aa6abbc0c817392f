"""Syncs that go on while a project is upgraded: those of a device over HTTP, and runs by commands."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection
from morango.models import Store
from morango.registry import syncable_models

from tests.support import factories
from tests.support.processes import LoggedProcess
from tests.support.waiting import until
from tests.upgrade.project import PATIENT_SECONDS, Project, Version
from worker.demo import server
from worker.demo.attachment import device_attached
from worker.demo.school import MODELS
from worker.school.models import PROFILE

ROWS = 40
"""Records of each school that arrives beside the device's."""

NOT_SYNCED = "_morango_dirty_bit"
DERIVED = "search_name"
"""Column that a model's own code fills."""


class Syncs:
    """A device that pushes without end, and schools that commands deserialize."""

    def __init__(self, project: Project, folder: Path, started: list[LoggedProcess]) -> None:
        """
        :param started: takes the device's process, for who ends it
        """
        self._project = project
        self._servers = folder / "servers.txt"
        self._device_url = f"sqlite:///{folder / 'device.sqlite3'}"
        self._log = folder / "device.log"
        self._started = started
        self._school_id = ""
        self._schools: list[str] = []

    # The device

    def begin(self, *urls: str) -> None:
        """Let the device begin to push to these servers, in turns."""
        access = server.found_school()
        self._school_id = access.school_id
        self.push_to(*urls)
        process = LoggedProcess(
            [
                *("tests.upgrade.device", "--servers", str(self._servers)),
                *("--school", access.school_id, "--account", access.account),
            ],
            self._log,
            {
                "DATABASE_URL": self._device_url,
                "DJANGO_SETTINGS_MODULE": "worker.settings",
                "REDIS_URL": "",
                "DEMO_PASSWORD": access.password,
                "NO_PROXY": "127.0.0.1",
            },
        )
        self._started.append(process)

    def push_to(self, *urls: str) -> None:
        """Let the device push to these servers from its next sync on; to none: let it end."""
        fresh = self._servers.with_suffix(".new")
        fresh.write_text("\n".join(urls))
        os.replace(fresh, self._servers)

    def wait_for_pushes(self, *urls: str, number: int = 2) -> None:
        """Wait until each of these servers has completed so many more syncs."""
        (device,) = self._started
        before = {url: self._pushes(url) for url in urls}
        device.wait_until(
            lambda: all(self._pushes(url) >= before[url] + number for url in urls),
            f"pushed {number} times to each of {len(urls)} servers",
            PATIENT_SECONDS,
        )

    def _pushes(self, url: str) -> int:
        return self._log.read_text().count(f"pushed to {url}\n") if self._log.exists() else 0

    def end(self) -> None:
        """Let the device end with the sync that it is at."""
        self.push_to()
        (device,) = self._started
        assert device.wait_until_ended(PATIENT_SECONDS) == 0, device.log()

    # Commands

    @contextmanager
    def commands_of(self, choose: Callable[[], Sequence[Version]]) -> Iterator[Callable[[int], None]]:
        """Let schools arrive while the block lasts, and versions' commands deserialize them in turns.

        :param choose: returns the versions that are installed at the moment
        Yields a function that waits until so many more are done.
        """
        over = threading.Event()
        done: list[str] = []
        errors: list[BaseException] = []

        def repeat() -> None:
            try:
                while not over.is_set():
                    for version in choose():
                        self.deserialize_by(version)
                        done.append(version.name)
            except BaseException as error:  # of any kind: it is raised in the test's own thread
                errors.append(error)
            finally:
                connection.close()

        def wait(number: int) -> None:
            before = len(done)
            until(
                lambda: errors or len(done) >= before + number, f"{number} runs by commands", PATIENT_SECONDS
            )
            if errors:
                raise errors[0]

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield wait
        finally:
            over.set()
            thread.join(PATIENT_SECONDS)
        if errors:
            raise errors[0]

    def deserialize_by(self, version: Version) -> str:
        """Let one more school arrive, and a version's command deserialize it; return its id."""
        school_id = self.arrive()
        self._project.command(
            version,
            "deserialize",
            f"--profile={PROFILE}",
            "--filter",
            school_id,
            "--wait",
            "--timeout",
            str(PATIENT_SECONDS),
        )
        return school_id

    def arrive(self) -> str:
        """Let one more school's records arrive, and return its id."""
        school_id = uuid.uuid4().hex
        factories.fill_store(ROWS, school_id=school_id)
        self._schools.append(school_id)
        return school_id

    # Results

    def assert_all_are_deserialized(self) -> None:
        """Assert that each record is done, and has the values that Morango gives it."""
        left = Store.objects.filter(dirty_bit=True) | Store.objects.exclude(deserialization_error=None)
        assert list(left.values_list("id", "model_name", "deserialization_error")) == []
        self._assert_same_as_device()
        for school_id in self._schools:
            _assert_as_stored(school_id)

    def _assert_same_as_device(self) -> None:
        with device_attached(self._device_url) as device:
            for model in MODELS:
                ours, theirs = (self._rows(model, alias) for alias in ("default", device))
                assert theirs, model
                assert set(ours) == set(theirs), model
                different = [pk for pk, row in theirs.items() if ours[pk] != row]
                assert different == [], (model, ours[different[0]], theirs[different[0]])

    def _rows(self, model: Any, alias: str) -> dict[str, dict[str, Any]]:
        rows = model._base_manager.using(alias).filter(_morango_partition__startswith=self._school_id)
        found = {row["id"]: row for row in rows.values()}
        for row in found.values():
            del row[NOT_SYNCED]
        return found


def _assert_as_stored(school_id: str) -> None:
    records = Store.objects.filter(profile=PROFILE, partition__startswith=school_id)
    assert records.count() >= ROWS
    for record in records:
        model = syncable_models.get_model(PROFILE, record.model_name)
        expected = model.deserialize(json.loads(record.serialized))
        expected.clean_fields()
        row = model._base_manager.get(pk=record.id)
        names = [
            field.attname for field in model._meta.concrete_fields if not field.attname.startswith("_morango")
        ]
        for name in set(names) - {DERIVED}:
            assert getattr(row, name) == getattr(expected, name), (record.model_name, record.id, name)
