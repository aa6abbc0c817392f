"""Pins of a lock file, with their hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tests.support.processes import ROOT

EVERYTHING = ROOT / "requirements.lock"
IMAGE = ROOT / "worker/requirements.lock"
KOLIBRI = ROOT / "tests/kolibri/requirements.lock"
LOCKS = (EVERYTHING, IMAGE, KOLIBRI)

PROJECT = "pyproject.toml"
"""Origin of a pin that this project itself asks for."""


class LockError(Exception):
    """A lock has a line that isn't a pin with its hashes."""


@dataclass(frozen=True)
class Pin:
    name: str
    """Name as package indexes normalize it."""
    version: str
    marker: Marker | None
    """Marker of the places where it is installed; None for everywhere."""
    hashes: frozenset[str]
    """SHA-256, in hex, of each file that may be installed."""
    needed_by: frozenset[str]
    """Names of other pins, and `PROJECT`; not files of requirements."""


def read(lock: Path) -> list[Pin]:
    """Return the pins in the lock's order. A name may be there several times, for different places.

    :raises LockError: something in it isn't pinned, or has no hash
    """
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    return [_pin(entry, lock) for entry in entries]


def _pin(entry: str, lock: Path) -> Pin:
    first, *rest = entry.split("\n")
    try:
        requirement = Requirement(first.removesuffix("\\"))
    except InvalidRequirement as error:
        raise LockError(f"{lock.name} has a line that is no requirement: {error}") from None
    versions = [part for part in requirement.specifier if part.operator == "==" and "*" not in part.version]
    if len(versions) != 1 or len(requirement.specifier) != 1:
        raise LockError(f"{lock.name} doesn't pin {requirement.name}: {first}")
    hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
    if not hashes:
        raise LockError(f"{lock.name} has no hash of {requirement.name}.")
    comments = re.findall(r"^    #(?: via)? +(\S.*)$", "\n".join(rest), re.MULTILINE)
    return Pin(
        name=canonicalize_name(requirement.name),
        version=versions[0].version,
        marker=requirement.marker,
        hashes=hashes,
        needed_by=frozenset(
            _origin(comment) for comment in comments if comment[0] != "-" and comment != "via"
        ),
    )


def _origin(comment: str) -> str:
    """Return the origin in a comment such as ``celery`` or ``morango-celery (pyproject.toml)``."""
    return PROJECT if comment.endswith(f"({PROJECT})") else canonicalize_name(comment)
