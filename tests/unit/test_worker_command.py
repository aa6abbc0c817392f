"""``python -m morango_celery.worker``: its command line, and the bootsteps that it leaves out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORKER = ("-m", "morango_celery.worker")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBUG": "1", "DATABASE_URL": "sqlite://"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "-A PROJECT is missing"),
        (("-A", "worker.nowhere"), "No module named 'worker.nowhere'"),
        (("-A", "json"), "module 'json' has no attribute 'celery'"),
        (("-A", "worker", "--detach"), "stays in the foreground"),
        (("-A", "worker", "--concurency=2"), "No such option"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], problem: str) -> None:
    done = run(*WORKER, *arguments)

    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_import_error_inside_an_application_is_not_taken_for_a_wrong_name() -> None:
    done = run("-c", _WITH_BROKEN_APPLICATION)

    assert "Traceback" in done.stderr
    assert "ModuleNotFoundError: No module named 'not_installed'" in done.stderr


_WITH_BROKEN_APPLICATION = """
import importlib.abc, importlib.util, sys
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "broken" else None
    def exec_module(self, module):
        import not_installed
sys.meta_path.insert(0, Finder())
from morango_celery.worker.__main__ import main
main(["-A", "broken"])
"""


def test_command_has_the_options_of_celerys() -> None:
    done = run(*WORKER, "-A", "worker", "--help")

    assert done.returncode == 0
    assert {"--concurrency", "--queues", "--max-tasks-per-child", "--pool"} <= set(
        done.stdout.replace(",", " ").split()
    )


def test_command_loads_nothing_of_celerys_other_commands() -> None:
    loaded = run(
        "-c",
        "import sys\nfrom morango_celery.worker.__main__ import main\n"
        "try: main(['-A', 'worker', '--help'])\n"
        "finally: print('loaded:', *sys.modules)",
    )

    modules = set(loaded.stdout.partition("loaded:")[2].split())
    assert "celery.bin.worker" in modules
    assert not {"click_repl", "flower", "celery.bin.celery", "prompt_toolkit"} & modules
