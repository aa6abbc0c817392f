"""Commands with a standard output that nobody reads: ``python -m tests.support.unread``.

Reads a JSON list of `Unread` from standard input, and writes one of each command's exit status and error
output. The commands are forks of this process, so that Django is set up once for all of them. Each ends
as an interpreter does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import IO, TypedDict

import django

from worker.__main__ import main


class Unread(TypedDict):
    arguments: list[str]
    errors_too: bool
    """True if nobody reads the standard error either."""


def start(command: Unread, errors: IO[bytes]) -> int:
    """Return the process id of a command; 0 in its own process."""
    if child := os.fork():
        return child
    reads, writes = os.pipe()
    os.close(reads)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(writes, sys.stdout.fileno())
    os.dup2(writes if command["errors_too"] else errors.fileno(), sys.stderr.fileno())
    os.close(writes)
    sys.argv = ["manage.py", *command["arguments"]]
    return 0


def run() -> None:
    commands: list[Unread] = json.load(sys.stdin)
    django.setup()
    files = [tempfile.TemporaryFile() for _ in commands]  # noqa: SIM115  (this process ends soon)
    children = []
    for command, errors in zip(commands, files, strict=True):
        child = start(command, errors)
        if child == 0:
            main()
            return
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    ended = []
    for status, errors in zip(statuses, files, strict=True):
        errors.seek(0)
        ended.append((status, errors.read().decode()))
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    run()
