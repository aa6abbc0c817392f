"""The base of this project's commands: their output, and the statuses that they end with."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper, UnsupportedOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from typing_extensions import override

BROKEN_PIPE = 141
"""The exit status of a shell's command that SIGPIPE has ended, as in ``git log | head``."""
INTERRUPTED = 130
"""The exit status of a shell's command that Ctrl-C has ended."""
WRONG_ARGUMENTS = 2

ALWAYS = {
    0: "done",
    1: "it failed, and the last line says why",
    WRONG_ARGUMENTS: "the arguments are wrong",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "nobody reads the output any more",
}
"""Exit statuses of every command, if it says nothing else about them."""


def exit_statuses(own: Mapping[int, str]) -> str:
    """Return a text about exit statuses, for the end of a command's help.

    :param own: statuses beside `ALWAYS`, or other meanings of theirs
    """
    lines = [f"  {status:<3}  {meaning}" for status, meaning in sorted({**ALWAYS, **own}.items())]
    return "\n".join(["exit status:", *lines, ""])


class PipeSafeCommand(BaseCommand):
    """A command whose lines are written at once, and which ends with `BROKEN_PIPE` if its reader has gone."""

    exit_statuses = exit_statuses({})
    """Text about them, for the end of the command's help."""

    @override
    def create_parser(self, *arguments: Any, **options: Any) -> CommandParser:
        parser = super().create_parser(*arguments, **options)
        parser.epilog = self.exit_statuses
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def write_json(self, value: object) -> None:
        """Write a line of JSON."""
        self.stdout.write(json.dumps(value))

    @override
    def run_from_argv(self, argv: Sequence[str]) -> None:
        for stream in _standard_streams():
            stream.reconfigure(line_buffering=True)  # or the reader of a command that goes on waits for lines
        ended: SystemExit | None = None
        try:
            try:
                super().run_from_argv(list(argv))
            except SystemExit as error:
                ended = error
            except KeyboardInterrupt:
                self.stderr.write("Interrupted.")
                ended = SystemExit(INTERRUPTED)
            for stream in _standard_streams():
                stream.flush()  # or Python does it at exit, and complains
        except BrokenPipeError:
            left = [stream for stream in _standard_streams() if _nobody_reads(stream)]
            if not left:
                raise  # that of some other connection
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in left:
                os.dup2(nowhere, stream.fileno())
            sys.exit(BROKEN_PIPE)
        if ended is not None:
            raise ended


def _standard_streams() -> Iterator[TextIOWrapper]:
    for stream in (sys.stdout, sys.stderr):
        with suppress(UnsupportedOperation):  # in memory, where a test or another program has put it there
            if isinstance(stream, TextIOWrapper) and stream.fileno() >= 0:
                yield stream


def _nobody_reads(stream: TextIOWrapper) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # errors are always told
    return bool(poll.poll(0))
