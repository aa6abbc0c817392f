"""Recoveries of a worker, read from its log."""

from __future__ import annotations

import re

from tests.support.processes import LoggedProcess

_SUCCEEDED = re.compile(r"recover_runs\[[^]]+\] succeeded in [\d.e-]+s: (\d+)")


def recoveries(worker: LoggedProcess) -> int:
    """Return the number of recoveries."""
    return len(_SUCCEEDED.findall(worker.log()))


def sent_again(worker: LoggedProcess) -> int:
    """Return the number of messages that they have sent."""
    return sum(map(int, _SUCCEEDED.findall(worker.log())))
