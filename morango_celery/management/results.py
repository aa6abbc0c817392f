"""JSON of commands' results, for programs. `deserialize_status` and its like have `json_output`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TypedDict

VERSION = 1
"""Version of every object of JSON: another number if a key goes, or means something else."""


class RecoveredJson(TypedDict):
    """Messages, as ``recover_runs --json`` writes them after each look."""

    version: int
    sent: int
    waiting: int


class PausedJson(TypedDict):
    """A pause, as ``pause_runs --json`` writes it."""

    version: int
    scope: str
    waiting: int


class ResumedJson(TypedDict):
    """Runs, as ``resume_runs --json`` writes them."""

    version: int
    runs: list[int]
    pauses: int


class IndexesJson(TypedDict):
    """Indexes, as ``create_sync_indexes --json`` writes them."""

    version: int
    created: list[str]
    removed: list[str]
    indexes: int


class IngestedJson(TypedDict):
    """Lines of a log, as ``ingest_objects --json`` writes them."""

    version: int
    lines: int
    applied: int
    dead_letters: int
    dead_letters_applied: int


class RetriedJson(TypedDict):
    """Dead letters, as ``ingest_objects --retry-dead-letters --json`` writes them."""

    version: int
    applied: int
    left: int


class RecordedJson(TypedDict):
    """Lines of the log, as ``record_objects --json`` writes them."""

    version: int
    lines: int
    file: str


class PrunedRunsJson(TypedDict):
    """Rows, as ``prune_runs --json`` writes them."""

    version: int
    runs: int
    batches: int
    comparisons: int
    kept_runs: int
    interrupted: bool


class PrunedOplogJson(TypedDict):
    """Rows, as ``prune_oplog --json`` writes them."""

    version: int
    letters: int
    positions: int


class PrunedPayloadsJson(TypedDict):
    """Payloads, as ``prune_payloads --json`` writes them."""

    version: int
    payloads: int
    size_bytes: int


class DeletedPayloadJson(TypedDict):
    """Parts of a payload, as ``prune_payloads --delete --json`` writes them."""

    version: int
    parts: int


def add_json(parser: ArgumentParser, help_text: str = "write the result as one object of JSON") -> None:
    """Add the option ``--json``."""
    parser.add_argument("--json", action="store_true", help=help_text)
