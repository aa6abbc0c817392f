"""What a worker's log says of the recoveries that it has carried out."""

from __future__ import annotations

import re

from tests.support.processes import LoggedProcess

_SUCCEEDED = re.compile(r"recover_runs\[[^]]+\] succeeded in [\d.e-]+s: (\d+)")


def sweeps(worker: LoggedProcess) -> int:
    """How many there were."""
    return len(_SUCCEEDED.findall(worker.log()))


def sent_again(worker: LoggedProcess) -> int:
    """How many messages they have sent."""
    return sum(map(int, _SUCCEEDED.findall(worker.log())))
