"""The last released version: its commit, its columns, and its package, built from the history."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.support.processes import ROOT

FILE = Path(__file__).with_name("released.toml")
BUILT = ROOT / "build" / "upgrade"
"""Folder of built releases, one for each commit; `make clean` removes it."""
_COMPLETE = "complete"


class MissingCommitError(Exception):
    """The release can't be built from this clone."""


@dataclass(frozen=True)
class Release:
    """A released version, as ``released.toml`` names it."""

    version: str
    commit: str
    migrations: Mapping[str, str]
    """Last migration that it has, by app."""
    columns: Mapping[str, Sequence[str]]
    """Columns that it reads and writes, by table: the next version must not take them away."""


@dataclass(frozen=True)
class Installed:
    """A release in an environment of its own."""

    python: Path
    project: Path
    """Folder with the release's sample project, and nothing else."""


def released() -> Release:
    """Return the last release."""
    return Release(**tomllib.loads(FILE.read_text()))


def install(release: Release) -> Installed:
    """Build the release's wheel and install it, unless that was done before.

    The other packages are those of the present environment. Only this package differs.
    :raises MissingCommitError: the clone has no such commit
    """
    folder = BUILT / release.commit
    found = Installed(folder / "environment" / "bin" / "python", folder / "project")
    if (folder / _COMPLETE).exists():
        return found
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    _extract(release, source)
    _run(sys.executable, "-m", "pip", "wheel", *_OFFLINE, f"--wheel-dir={folder}", str(source))
    (wheel,) = folder.glob("*.whl")
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder / "environment"))
    _run(
        sys.executable, "-m", "pip", f"--python={found.python}", "install", *_QUIET, "--no-index", str(wheel)
    )
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    # A path alone: files of the present package's own installation are not read from there
    (packages / "present.pth").write_text(sysconfig.get_path("purelib") + "\n")
    shutil.copytree(source / "worker", found.project / "worker")
    (folder / _COMPLETE).touch()
    return found


_QUIET = ("--quiet", "--disable-pip-version-check", "--no-deps")
_OFFLINE = (*_QUIET, "--no-build-isolation", "--no-index")


def _extract(release: Release, folder: Path) -> None:
    if subprocess.run(_git("cat-file", "-e", f"{release.commit}^{{commit}}"), check=False).returncode:
        raise MissingCommitError(
            f"This clone lacks {release.commit}, the commit of version {release.version}, from which these "
            "tests build it. A shallow clone gets it by `git fetch --unshallow`."
        )
    archive = subprocess.run(
        _git("archive", "--format=tar", release.commit), check=True, stdout=subprocess.PIPE
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def _git(*arguments: str) -> list[str]:
    return ["git", "-C", str(ROOT), *arguments]


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert not done.returncode, f"{' '.join(command)}:\n{done.stdout}"
