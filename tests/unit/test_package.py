"""What is installed in other projects' site-packages."""

from __future__ import annotations

import tomllib

from tests.processes import ROOT


def test_files_that_are_no_modules_are_installed_too() -> None:
    package = ROOT / "morango_celery"
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in configured["morango_celery"] for path in package.glob(pattern)}
    needed = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert needed - installed == set()
    assert len(needed) > 3
