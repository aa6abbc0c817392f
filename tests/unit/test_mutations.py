"""Each deviation has a mutation that fits the code, and the runner tells caught mutants from others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.mutations.__main__ import main
from tests.mutations.deviations import MUTATIONS
from tests.mutations.mutation import Mutation
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
    files = {
        "morango_celery/__init__.py": "",
        "morango_celery/code.py": CODE,
        "tests/test_code.py": TEST,
        "conftest.py": OPTION,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def mutation(rule: str, old: str, new: str) -> Mutation:
    return Mutation(rule, "code.py", old, new, ("test_code.py",))


def test_every_deviation_has_one_mutation() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', (ROOT / "docs" / "fidelity.md").read_text())

    assert sorted(mutation.rule for mutation in MUTATIONS) == sorted(anchors)


@pytest.mark.parametrize("entry", MUTATIONS, ids=lambda entry: entry.rule)
def test_mutation_fits_the_code(entry: Mutation) -> None:
    compile(entry.mutated(ROOT), entry.path, "exec")
    for test in entry.tests:  # pytest doesn't start if one isn't there
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test


def test_only_mutants_that_fail_a_test_are_caught(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    caught = mutation("caught", "a > b", "a < b")
    others = [
        mutation("survivor", "a > b", "a >= b"),
        mutation("no-code", "a > b", "a > > b"),
        mutation("gone", "a == b", "a != b"),
        mutation("ambiguous", "b", "a"),
    ]

    assert main(["caught"], [caught, *others], project) is None
    assert "caught: caught by tests/test_code.py::test_larger" in capsys.readouterr().out

    error = main([], [caught, *others], project)

    assert error == "error: not caught: survivor, no-code, gone, ambiguous"
    out = capsys.readouterr().out
    assert "survivor: SURVIVED" in out
    assert "no-code: NOT TRIED, pytest's status is 2" in out
    assert "gone: NOT TRIED, its old text stands 0 times in morango_celery/code.py" in out
    assert "ambiguous: NOT TRIED, its old text stands 3 times" in out
    assert "1 of 5 caught" in out
    assert (project / "morango_celery/code.py").read_text() == CODE


def test_nothing_is_mutated_while_tests_fail_already(project: Path) -> None:
    (project / "tests/test_code.py").write_text(TEST.replace("== 2", "== 3"))

    error = main([], [mutation("caught", "a > b", "a < b")], project)

    assert error
    assert error.endswith("error: tests fail on sqlite before anything is mutated")


def test_rule_that_is_none_is_refused(project: Path) -> None:
    assert main(["unknown"], [], project) == "error: no such deviation: unknown"
