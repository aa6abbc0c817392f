"""The common beginning of all scenarios: a server, a device that was synced with it, and later changes on
both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path

from tests.kolibri.compare import Outcome
from tests.kolibri.plug_in import people
from tests.kolibri.plug_in.installation import (
    ACCOUNT,
    PASSWORD,
    PLUG_IN,
    SLOW_SECONDS,
    Installation,
    new_installation,
)
from tests.kolibri.plug_in.outcome import outcome, user
from tests.kolibri.verdict import Verdict, judge
from tests.support.processes import LoggedProcess

EXHAUSTED = "tests.kolibri.plug_in.exhausted"

PASSWORDS = {".".join(map(str, pictures)) for pictures in permutations(range(1, 13), 3)}


@dataclass
class Stage:
    """Servers on one kind of database. Scenarios get copies of what is prepared here."""

    engine: str
    folder: Path
    postgres_url: str
    _stock: dict[str, Outcome] = field(default_factory=dict)

    @cached_property
    def _prepared(self) -> tuple[Installation, Installation]:
        server = new_installation(self.folder / f"server_{self.engine}", self.postgres_url)
        account = ("--superusername", ACCOUNT, "--superuserpassword", PASSWORD)
        server.manage(
            "provisiondevice",
            *("--facility", "School", "--preset", "formal", "--language_id", "en", "--noinput", *account),
        )
        server.act(people.found.__name__)
        device = new_installation(self.folder / f"device_{self.engine}")
        with server.server() as (url, _):
            ended(device.sync_with(url))
        server.act(people.meanwhile.__name__)
        device.act(people.away.__name__)
        return server, device

    @property
    def server(self) -> Installation:
        """A server as its administrator has it, without the plug-in."""
        return self._prepared[0].copy()

    @property
    def device(self) -> Installation:
        return self._prepared[1].copy()

    def plugged_in(self, **settings: str) -> Installation:
        """Yield a server with the plug-in.

        :param settings: more environment variables
        """
        server = self._prepared[0].copy(**settings)
        server.command("kolibri", "plugin", "enable", PLUG_IN)
        return server

    def stock(self, settings: str = "") -> Outcome:
        """Return the outcome of the device's push on a server without the plug-in.

        :param settings: its settings module
        """
        if settings not in self._stock:
            server = self._prepared[0].copy(**({"DJANGO_SETTINGS_MODULE": settings} if settings else {}))
            with server.server() as (url, process):
                ended(self.device.sync_with(url, "--no-pull"))
                assert "Failed to deserialize Store record" in process.log(), "nothing collided"
            found = server.snapshot()
            server.act(people.retry_errors.__name__)
            self._stock[settings] = _repaired(outcome("morango", found, server.snapshot()), settings)
        return self._stock[settings]

    def compare(self, server: Installation, settings: str = "", leaving_out: Collection[str] = ()) -> str:
        """Assert that two outcomes are the same, and return a summary in a few words.

        :param leaving_out: tables that are not to be the same
        :raises AssertionError: what isn't
        """
        ours = _repaired(outcome("ours", server.snapshot()), settings)
        stock, ours = (_without(leaving_out, outcome) for outcome in (self.stock(settings), ours))
        verdict = judge(stock, ours)
        assert verdict.holds, "\n".join(verdict.complaints[:20])
        return _summary(verdict, ours)


def ended(process: LoggedProcess) -> None:
    """Wait for the end of a process.

    :raises AssertionError: it failed
    """
    assert status_of(process) == 0, process.log()


def status_of(process: LoggedProcess) -> int:
    """Return the exit status of a process that ends by itself."""
    try:
        return process.wait_until_ended(SLOW_SECONDS)
    finally:
        process.stop()


@contextlib.contextmanager
def pushing(device: Installation, url: str) -> Iterator[LoggedProcess]:
    """Yield a push that has begun; it is stopped if the block fails."""
    process = device.sync_with(url, "--no-pull")
    try:
        yield process
    finally:
        process.stop()


def wait_for(process: LoggedProcess, happened: Callable[[], bool], what: str) -> None:
    process.wait_until(happened, what, SLOW_SECONDS)


def _repaired(outcome: Outcome, settings: str) -> Outcome:
    """Return the outcome without the effect of chance: the new password of the server's learner.

    :raises AssertionError: not both learners are there, the device's with the coveted password
    """
    claimant, holder = user(outcome.tables, "claimant"), user(outcome.tables, "holder")
    assert claimant["picture_password"] == people.COVETED, f"{outcome.implementation}: {claimant}"
    assert holder["_morango_dirty_bit"], f"{outcome.implementation}: {holder}"
    password = holder["picture_password"]
    if settings == EXHAUSTED:
        assert password is None, f"{outcome.implementation}: {password}"
    else:
        assert password in PASSWORDS - {people.COVETED}, f"{outcome.implementation}: {password}"
    holder["picture_password"] = "(another)"
    return outcome


def _without(tables: Collection[str], outcome: Outcome) -> Outcome:
    return replace(
        outcome, tables={name: rows for name, rows in outcome.tables.items() if name not in tables}
    )


def _summary(verdict: Verdict, ours: Outcome) -> str:
    rows = sum(len(rows) for rows in ours.tables.values())
    allowed = ", ".join(f"{count} {name}" for name, count in verdict.allowed.items())
    tables = sum(bool(rows) for rows in ours.tables.values())
    return f"{rows} rows in {tables} tables are the same" + (f", but for {allowed}" if allowed else "")
