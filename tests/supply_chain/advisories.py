"""Advisories of a service, as pip-audit asks it.

By itself, pip-audit takes a missing answer for a clean package. A mirror of the package index may have no
answers at all. Here a missing answer is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Package = tuple[str, str]
"""Name, as package indexes normalize it, and version."""


class NoAnswerError(Exception):
    """The service said nothing of some packages, or nothing at all."""


@dataclass(frozen=True)
class Finding:
    """A known vulnerability of a package."""

    package: Package
    ids: tuple[str, ...]
    """All those that it is known by."""
    fixed_in: tuple[str, ...]
    """Versions."""
    summary: str


def ask(packages: Sequence[Package], service: Sequence[str]) -> list[Finding]:
    """Return the known advisories of packages.

    :param service: options of pip-audit
    :raises NoAnswerError: the service has no answer for some of them
    """
    found: list[Finding] = []
    left = sorted(packages)
    while left:  # pip-audit takes one version of a package at a time
        one_each = list({name: (name, version) for name, version in left}.values())
        left = [package for package in left if package not in one_each]
        found += findings(_report(one_each, service), one_each)
    return found


def _report(packages: Sequence[Package], service: Sequence[str]) -> Mapping[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(f"{name}=={version}\n" for name, version in packages)
        requirements.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements.name, "--disable-pip"]
        command += ["--no-deps", "--format=json", "--aliases=on", "--desc=on", "--progress-spinner=off"]
        done = subprocess.run([*command, *service], capture_output=True, text=True)
    try:
        report: Mapping[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"nothing, and ended with status {done.returncode}"]
        raise NoAnswerError(f"The advisory service couldn't be reached. pip-audit said: {said[-1]}") from None
    return report


def findings(report: Mapping[str, Any], packages: Sequence[Package]) -> list[Finding]:
    """Return the advisories in pip-audit's JSON report.

    :raises NoAnswerError: it lacks some of the packages
    """
    entries = {entry["name"]: entry for entry in report["dependencies"]}
    without = [(name, version) for name, version in packages if "vulns" not in entries.get(name, {})]
    if without:
        what = "couldn't be reached" if len(without) == len(packages) else "doesn't know some packages"
        names = ", ".join(" ".join(package) for package in without[:5]) + (", ..." if without[5:] else "")
        said = entries.get(without[0][0], {}).get("skip_reason", "nothing")
        raise NoAnswerError(
            f"The advisory service {what}: there is no answer for {len(without)} of {len(packages)} "
            f"({names}). pip-audit said: {said}"
        )
    return [
        Finding(
            (name, version),
            (known["id"], *known["aliases"]),
            tuple(known["fix_versions"]),
            " ".join(known["description"].split()),
        )
        for name, version in packages
        for known in entries[name]["vulns"]
    ]
