"""Contents of the installed package, and its public names."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import pytest

import morango_celery
from tests.support.processes import ROOT

FUNCTIONS = [
    "cancel",
    "deserialize",
    "deserialize_from_store",
    "recover_runs",
    "retry",
    "serialize_into_store",
    "pause",
    "resume",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_plain_functions(name: str) -> None:
    """Editors and `inspect` find their signature and their source."""
    function = getattr(morango_celery, name)
    assert inspect.isfunction(function)
    assert function.__name__ == name
    source = inspect.getsourcefile(function)
    assert source is not None
    assert f"def {name}(" in Path(source).read_text()
    assert inspect.signature(function).parameters


def test_public_names_are_those_listed() -> None:
    assert set(morango_celery.__all__) == {*FUNCTIONS, "DeserializeTask", "StoreModelSource"}
    assert all(getattr(morango_celery, name).__name__ == name for name in morango_celery.__all__)


def test_files_that_are_no_modules_are_installed_too() -> None:
    package = ROOT / "morango_celery"
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    installed = {path for pattern in configured["morango_celery"] for path in package.glob(pattern)}
    needed = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert needed - installed == set()
    assert len(needed) > 3
