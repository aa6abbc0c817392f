"""Builds an environment with Kolibri in it: ``python -m tests.kolibri.environment FOLDER [--as-shipped]``.

Kolibri's wheel brings its dependencies along in ``kolibri/dist`` and puts that folder first on ``sys.path``,
where its redis and tzlocal hide those that Celery needs. Here the folder is emptied, and the same versions
come from the package index (``requirements.in``). As shipped, the folder stays, and beside it is installed
what this project would bring to a server of Kolibri's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

PROJECT = Path(__file__).parents[2]

LOCK = Path(__file__).with_name("requirements.lock")

DEPLOYED = PROJECT / "worker" / "requirements.lock"
"""Requirements of this project, without regard to Kolibri."""

BUNDLE = "kolibri/dist"


def main(folder: Path, *, as_shipped: bool = False) -> None:
    """Build the environment in `folder` unless it is there already, made from the same locks.

    :param as_shipped: leave Kolibri the libraries that it brings along
    """
    sources = (LOCK, Path(__file__), *([DEPLOYED] if as_shipped else []))
    state = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == state:
        return
    print(f"Building {folder.name} with Kolibri, once; a minute or so", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    python = str(folder / "bin" / "python")
    pip = (python, "-m", "pip", "install", "-qq", "--no-deps", "--disable-pip-version-check")
    if as_shipped:
        with NamedTemporaryFile("w", suffix=".txt") as chosen:
            chosen.write(_entry("kolibri") + _entry("setuptools"))  # which builds this project
            chosen.flush()
            _run(*pip, "--require-hashes", "-r", chosen.name, "-r", str(DEPLOYED))
    else:
        _run(*pip, "--require-hashes", "-r", str(LOCK))
        _empty(next(folder.glob(f"lib/python*/site-packages/{BUNDLE}")))
    _run(*pip, "--no-build-isolation", "--editable", str(PROJECT))
    stamp.write_text(state)


def _entry(package: str) -> str:
    """Return the lock's entry of a package: its version, and its hashes in the lines after that."""
    entry = re.search(rf"^{package}==(.*\\\n)*.*\n", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert entry is not None
    return entry[0]


def _run(*command: str) -> None:
    # MAKEFLAGS and the like of whoever runs this must not reach the builds of packages.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(command, check=True, env=environ)


def _empty(package: Path) -> None:
    """Leave nothing of a package but the package itself."""
    shutil.rmtree(package)
    package.mkdir()
    (package / "__init__.py").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), as_shipped="--as-shipped" in sys.argv[2:])
