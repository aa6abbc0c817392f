"""Files that the package has for a host's deployment: copied, adapted, and true to this project's own."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from morango_celery import celery_settings
from morango_celery.contrib import gunicorn
from morango_celery.contrib.deployment import __main__ as command
from morango_celery.contrib.deployment import kit
from morango_celery.worker.shutdown import DYING_SECONDS, LEAVING_SECONDS
from tests.support.processes import ROOT
from worker import environment

UNITS = [name for name in kit.names() if name.endswith(".service")]
OF_HOST = {
    "python -m worker": "python manage.py",
    "-A worker": "-A myproject",
    "worker.wsgi": "myproject.wsgi",
    "morango-celery:0.2.0": "myproject:${VERSION:-1.0}",
}
"""Differences between this project's services and a host's."""


def test_copied_files_have_the_projects_name_and_none_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a project with a Dockerfile
    (tmp_path / "Dockerfile").write_text("FROM own")

    # When the files are copied, twice
    first, second = [command.main([str(tmp_path), "--project", "school_sync"]) for _ in range(2)]

    # Then all are there, with the project's name
    copied = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert copied == {name.replace("myproject", "school_sync") for name in kit.names()}
    assert {".env.example", ".dockerignore", "grants.sql", "systemd/school_sync-web.service"} <= copied
    assert "school_sync.wsgi" in (tmp_path / "docker-compose.yml").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "myproject" in path.read_text()]

    # ... but for the one that was there
    assert (tmp_path / "Dockerfile").read_text() == "FROM own"
    assert (first, second) == (1, 1)
    assert f"{tmp_path / 'Dockerfile'} is there already" in capsys.readouterr().err


def test_one_file_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--print", "grants.sql"]) == 0
    assert capsys.readouterr().out == kit.text("grants.sql")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [".", "--print", "grants.sql"],
        ["--print", "nothing"],
        ["/no/such/folder"],
        [".", "--project", "my-project"],
        [".", "--project", "../up"],
    ],
)
def test_arguments_that_cannot_be_used_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2


def test_command_needs_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "morango_celery.contrib.deployment", "--print", "Dockerfile"],
        env={},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, kit.text("Dockerfile"))


def services(text: str) -> dict[str, Any]:
    file = yaml.safe_load(text)
    for service in file["services"].values():
        service.pop("build", None)
        if isinstance(service.get("command"), list):
            service["command"] = " ".join(service["command"])
    del file["name"], file["configs"]["grants"]
    found: dict[str, Any] = file
    return found


def adapted(node: Any) -> Any:
    match node:
        case str():
            for ours, hosts in OF_HOST.items():
                node = node.replace(ours, hosts)
        case list():
            return [adapted(part) for part in node]
        case dict():
            return {name: adapted(part) for name, part in node.items()}
    return node


def test_hosts_services_are_those_of_this_project() -> None:
    ours, hosts = (
        (path).read_text() for path in (ROOT / "docker-compose.yml", kit.FILES / "docker-compose.yml")
    )

    assert adapted(services(ours)) == services(hosts)
    assert {"build: .", "file: ./grants.sql"} <= {
        line.partition(" #")[0].strip() for line in hosts.splitlines()
    }


def test_example_names_each_variable_of_the_services() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", kit.text(".env.example"), re.MULTILINE))

    assert named == set(re.findall(r"\$\{(\w+)", kit.text("docker-compose.yml")))


def test_settings_of_the_page_read_what_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the variables that both kinds of deployment pass
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", kit.text("systemd/environment.example"), re.MULTILINE))
    for name, value in {**example, "DATABASE_URL": "postgresql://ann:p%40ss@db.example:5433/sync"}.items():
        monkeypatch.setenv(name, value)
    page = (ROOT / "docs" / "how-to" / "host.md").read_text(encoding="utf-8")
    block, *_ = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    # When a project has the settings of the page
    settings: dict[str, Any] = {}
    exec(block, settings)

    # Then they are those of this project's own deployment
    found = settings["DATABASES"]["default"]
    assert {**found, "PORT": str(found["PORT"])} == environment.database()
    assert settings["CELERY_BROKER_URL"] == example["REDIS_URL"]
    assert settings["ALLOWED_HOSTS"] == ["sync.example.org"]
    assert settings["SECURE_PROXY_SSL_HEADER"][1] == "https"
    assert settings["SESSION_COOKIE_SECURE"]

    # ... and need no broker on a host that monitors
    monkeypatch.delenv("REDIS_URL")
    exec(block, settings)
    assert settings["CELERY_BROKER_URL"] is None


def test_manage_gives_the_migrations_role_to_migrations_alone(tmp_path: Path) -> None:
    # Given the command, its two files, and a project that tells its role
    for name in ("environment", "migration"):
        (tmp_path / name).write_text(kit.text(f"systemd/{name}.example"))
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$DJANGO_SETTINGS_MODULE" "$DATABASE_URL" "$@"\n')
    python.chmod(0o755)
    here = re.sub(r"/(etc|opt)/myproject", str(tmp_path), kit.text("systemd/myproject-manage"))
    here = re.sub(r"setpriv( --\S+)+", "", here)

    def told(*arguments: str) -> str:
        return subprocess.run(
            ["sh", "-ec", here, "myproject-manage", *arguments], capture_output=True, text=True, check=True
        ).stdout

    # Then each command gets the role that it needs, and its arguments
    for command_name, role in (
        ("migrate", "migration"),
        ("create_sync_indexes", "migration"),
        ("doctor", "application"),
    ):
        words = told(command_name, "--flag", "two words").split(maxsplit=2)
        assert words[0] == "myproject.settings"
        assert words[1].startswith(f"postgresql://morango_{role}:")
        assert words[2] == f"manage.py {command_name} --flag two words\n"


def test_page_shows_the_command_of_the_kit() -> None:
    page = (ROOT / "docs" / "how-to" / "host.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^ *```sh\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)

    assert dedent(block) == kit.text("systemd/myproject-manage")


def unit(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as the standard library documents it
    parser.read_string(kit.text(name))
    return parser["Service"]


def test_units_are_found_and_their_grace_exceeds_the_time_to_stop() -> None:
    kinds = ("flower", "recover", "web", "worker@")
    assert [f"systemd/myproject-{name}.service" for name in kinds] == UNITS
    grace = {name: int(unit(name)["TimeoutStopSec"]) for name in UNITS}

    assert grace["systemd/myproject-web.service"] > gunicorn.graceful_timeout
    stopping = celery_settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT + DYING_SECONDS + LEAVING_SECONDS
    assert grace["systemd/myproject-worker@.service"] > stopping


@pytest.mark.parametrize("name", UNITS)
def test_unit_is_one_that_systemd_understands(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    path = tmp_path / Path(name).name.replace("@", "@1")
    path.write_text(re.sub(r"/opt/myproject(/\.venv/bin/\w+)?", sys.executable, kit.text(name)))

    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)

    assert path.name not in done.stderr, done.stderr


def test_units_and_containers_execute_the_same_commands() -> None:
    containers = services(kit.text("docker-compose.yml"))["services"]
    for name in ("web", "worker@", "recover", "flower"):
        words = unit(f"systemd/myproject-{name}.service")["ExecStart"].split()
        program = [Path(words[0]).name, *(word for word in words[1:] if not word.startswith("--"))]
        other = containers[name.removesuffix("@")]["command"].split()
        assert program == [word for word in other if not word.startswith("--")]


def test_servers_settings_are_gunicorns_own() -> None:
    known = {setting.name for setting in import_module("gunicorn.config").KNOWN_SETTINGS}

    own = {name for name in vars(gunicorn) if not name.startswith("_")} - {"annotations", "os", "sys", "Path"}
    assert own <= known
    assert {"workers", "threads", "graceful_timeout", "accesslog"} <= own


@pytest.mark.parametrize("number", ["0", "many", "-1"])
def test_number_of_processes_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("WEB_WORKERS", number)

    with pytest.raises(SystemExit, match="WEB_WORKERS must be a whole number from 1"):
        gunicorn._number("WEB_WORKERS", 2)
