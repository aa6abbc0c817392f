"""Tests of containers that need no engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from tests.smoke.containers import IMAGE, confinement, engine
from tests.smoke.deployment import SERVICES, SETTINGS, DeployedWorker
from tests.support.processes import ROOT

HINT = r"No Docker engine answers \(.+\)\. Start one, name it by DOCKER_HOST, or leave out --docker"
CLUSTERS = {
    "celery_broker_cluster_config": {"urls": ["redis://broker/0"]},
    "celery_backend_cluster_config": {"urls": ["redis://broker/0"]},
}


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_where_no_engine_answers_tests_are_skipped_and_in_ci_they_fail(
    no_engine: None, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)

    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match=HINT) as raised:
        engine()

    assert raised.type is outcome


def test_image_is_built_of_what_its_dockerfile_copies_and_of_nothing_else() -> None:
    dockerfile = (ROOT / IMAGE["dockerfile"]).read_text()
    copied = re.findall(r"^COPY (?!--)(\S+) \S+$", dockerfile, re.MULTILINE)
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]

    sent = exclude_paths(str(ROOT / IMAGE["context"]), ignored, dockerfile=IMAGE["dockerfile"])

    files = {Path(path) for path in sent if (ROOT / path).is_file()}
    assert copied
    for path in map(Path, copied):
        assert path in files or any(path in file.parents for file in files), f"{path} is not sent"
    assert {file.parts[0] for file in files} == {".dockerignore", "morango_celery", "worker"}
    assert not [file for file in files if file.suffix in (".pyc", ".sqlite3") or ".env" in file.name]


def test_worker_is_started_and_confined_as_it_is_deployed() -> None:
    worker = SERVICES["worker"]

    assert DeployedWorker.command()[: len(worker["command"])] == worker["command"]
    environment = DeployedWorker.initial_env({"celery_broker_cluster_config": {"urls": ["redis://broker/0"]}})
    assert environment["REDIS_URL"] == environment["CELERY_BROKER_URL"] == "redis://broker/0"
    assert {name for name, value in worker["environment"].items() if environment[name] != value} == {
        "REDIS_URL"
    }
    assert confinement(worker) == {
        "cap_drop": ["ALL"],
        "init": True,
        "mem_limit": "768m",
        "read_only": True,
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": {"/tmp": "size=64m,mode=1777"},
    }


def test_files_that_the_image_lacks_are_in_the_volume(
    default_worker_initial_content: dict[str, bytes],
) -> None:
    module = DeployedWorker.initial_env(CLUSTERS)["DJANGO_SETTINGS_MODULE"]

    path = Path(*module.split(".")).with_suffix(".py").relative_to("tests")
    assert default_worker_initial_content[str(path)] == (ROOT / "tests" / path).read_bytes()
    assert {str(folder / "__init__.py") for folder in path.parents} < set(SETTINGS)
