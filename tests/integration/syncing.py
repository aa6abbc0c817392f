"""A device that syncs over HTTP, and servers with settings of their own."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Protocol

from morango.constants import transfer_stages, transfer_statuses
from morango.models import SyncSession

from tests.support.processes import LoggedProcess
from tests.support.sync_state import is_at, session

RECORDS = 120

NO_WAIT = 'MORANGO_CELERY = {**MORANGO_CELERY, "REQUEST_WAIT_SECONDS": 0}\n'


class StartDevice(Protocol):
    def __call__(self, url: str, **environment: str) -> LoggedProcess: ...


def device_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'device.sqlite3'}"


def settings_module(tmp_path: Path, name: str, text: str, **modules: str) -> dict[str, str]:
    """Return environment variables for a process with the deployment's settings, followed by `text`.

    :param modules: names and contents of further modules that the process can import
    """
    folder = tmp_path / name
    folder.mkdir()
    modules[f"{name}_settings"] = f"from worker.settings import *\n{textwrap.dedent(text)}"
    for module, content in modules.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(content))
    return {"PYTHONPATH": str(folder), "DJANGO_SETTINGS_MODULE": f"{name}_settings"}


def assert_completed_and_closed() -> None:
    assert is_at(transfer_stages.CLEANUP, transfer_statuses.COMPLETED)
    assert not session().active
    assert not SyncSession.objects.get().active
