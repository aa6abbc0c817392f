"""The catalogue of mutations fits the code, and the runner tells caught mutations from others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mutations import deviations
from tests.mutations.__main__ import main
from tests.mutations.catalogue import CATALOGUE
from tests.mutations.mutation import Mutation, OutOfDateError
from tests.support.processes import ROOT

CODE = "def larger(a, b):\n    return a if a > b else b\n"
TEST = "from morango_celery.code import larger\n\ndef test_larger():\n    assert larger(2, 1) == 2\n"
OPTION = "def pytest_addoption(parser):\n    parser.addoption('--database')\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project of one function and one test, which is in no commit.

    Its pytest needs none of the plug-ins for Django and Celery, which take a second to load.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_timeout")
    files = {
        "morango_celery/__init__.py": "",
        "morango_celery/code.py": CODE,
        "tests/test_code.py": TEST,
        "tests/test_no_code.py": "def test_nothing():\n    pass\n",
        "conftest.py": OPTION,
        "ignored.py": "",
        ".gitignore": "ignored.py\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def mutation(**changed: Any) -> Mutation:
    columns = {
        "rule": "the-larger",
        "path": "code.py",
        "old": "a > b",
        "new": "a < b",
        "tests": ("test_code.py",),
    }
    return Mutation(**{**columns, **changed})


def test_every_deviation_has_a_mutation() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', (ROOT / "docs" / "fidelity.md").read_text())
    assert anchors
    assert [anchor for anchor in anchors if anchor not in {m.rule for m in deviations.MUTATIONS}] == []


def test_each_rule_has_a_name_of_its_own() -> None:
    assert len({m.rule for m in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.rule)
def test_a_mutation_fits_the_code(entry: Mutation) -> None:
    """A test that is named must be there, too: pytest doesn't start otherwise."""
    compile(entry.mutated(ROOT), entry.path, "exec")
    for test in entry.tests:
        file, _, name = test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert not name or f"def {name.rpartition('::')[2]}(" in text, test


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"old": "a >= b"}, "stands 0 times in morango_celery/code.py"),
        ({"old": "b"}, "stands 3 times in morango_celery/code.py"),
        ({"path": "gone.py"}, "there is no morango_celery/gone.py"),
    ],
)
def test_a_mutation_that_does_not_fit_is_out_of_date(
    project: Path, changed: dict[str, str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OutOfDateError, match=f"{reason}.*the catalogue is out of date"):
        mutation(**changed).mutated(project)
    assert main([], [mutation(**changed)], project) == 1
    assert reason in capsys.readouterr().out


def test_a_mutation_that_is_caught(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], [mutation()], project) == 0
    assert "the-larger: caught by tests/test_code.py::test_larger" in capsys.readouterr().out
    assert (project / "morango_celery/code.py").read_text() == CODE


def test_a_mutation_that_survives(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survivor = mutation(rule="the-larger-or-equal", new="a >= b")
    assert main([], [mutation(), survivor], project) == 1
    assert "the-larger-or-equal: SURVIVED" in capsys.readouterr().out


def test_a_mutation_that_lets_no_test_run_is_not_caught(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], [mutation(new="a > > b")], project) == 1
    assert "NOT TRIED" in capsys.readouterr().out


def test_nothing_is_broken_while_tests_fail_already(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "morango_celery/code.py").write_text(CODE.replace("else b", "else a - 1"))
    (project / "tests/test_code.py").write_text(TEST.replace("2, 1", "1, 2"))
    assert main([], [mutation()], project) == 1
    out = capsys.readouterr().out
    assert "FAILED while nothing is broken" in out
    assert "caught" not in out


def test_rules_can_be_chosen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = mutation(rule="another", tests=("test_no_code.py",))
    assert main(["the-larger"], [mutation(), other], project) == 0
    assert main(["--list"], [mutation(), other], project) == 0
    assert "another  (code.py, sqlite)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["unknown"], [mutation(), other], project)
