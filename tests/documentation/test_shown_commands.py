"""Each command that a page shows can be given: its program, its options, and, if it ends soon, its effect."""

from __future__ import annotations

import re
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import BaseCommand, call_command, get_commands, load_command_class

from morango_celery.contrib.deployment import kit
from morango_celery.models import Run
from tests.documentation.shown_commands import Managed, Shown, lines_of, managed, shown, words_of
from tests.support import compose
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE

COMMANDS = managed()
IDS = [str(one) for one in COMMANDS]
OF_RUNS = {"retry_run": Run.State.CANCELLED, "cancel_run": Run.State.PENDING, "deserialize_status": None}
"""Commands whose argument is a run, and the state that it is to be in."""
TELLING = {"deserialize_status": (3, 4, 6), "doctor": (1,)}
"""Exit statuses that tell of other things than the command itself: of failed runs here, and of no worker."""
NOT_RUN = {
    *("--watch", "--follow", "--interval", "restored"),
    *("compare_with_morango", "createsuperuser", "migrate", "shell"),
}
"""Words of commands that go on, ask, take long, or need another database: tests elsewhere give these."""
PROGRAMS = {
    *("celery", "chmod", "cp", "docker", "done", "for", "install", "kolibri", "make", "manage.py", "pg_dump"),
    *("pip", "psql", "python", "sed", "systemctl", ".venv/bin/pip", ".venv/bin/python"),
    *(".venv-0.3/bin/pip", ".venv-0.3/bin/python"),
    *("curl", "journalctl", "myproject-manage", "python3", "redis-cli", "sudo", "useradd"),
}
"""Programs in blocks that people copy."""
COMPOSE: dict[str, set[str]] = {
    "build": set(),
    "down": set(),
    "exec": {"-T"},
    "kill": set(),
    "logs": {"--follow", "--tail"},
    "ps": {"--format"},
    "run": {"--rm", "-T"},
    "stop": set(),
    "up": {"--detach", "--build", "--wait", "--scale", "--no-recreate", "--no-deps"},
}
"""Options of ``docker compose`` that the pages use."""


def arguments_of(one: Managed, tmp_path: Path, run: int) -> list[str]:
    """Return the arguments with values in place of their names."""
    log = tmp_path / "changes.log"
    log.touch()
    values = {"RUN": str(run), "PROFILE": PROFILE, "facilitydata": PROFILE, "FILE": str(log), "N": "5"}
    is_of_run = one.name in OF_RUNS
    return [str(run) if is_of_run and word.isdigit() else values.get(word, word) for word in one.arguments]


def parser_of(name: str) -> Any:
    app = get_commands()[name]
    command = app if isinstance(app, BaseCommand) else load_command_class(app, name)
    return command.create_parser("manage.py", name)


@pytest.mark.parametrize("one", COMMANDS, ids=IDS)
def test_command_takes_the_arguments_that_are_shown(one: Managed, tmp_path: Path, capsys: Any) -> None:
    assert one.name in get_commands(), f"there is no command {one.name}"
    parser = parser_of(one.name)
    if one.shown.in_block:
        try:
            parser.parse_args(arguments_of(one, tmp_path, run=1))
        except SystemExit:
            pytest.fail(capsys.readouterr().err)
    else:  # it may leave out what has to be there
        options = {option for action in parser._actions for option in action.option_strings}
        given = {word.partition("=")[0] for word in one.arguments if word.startswith("--")}
        assert given <= options


@pytest.mark.django_db(transaction=True)
def test_commands_that_end_do_what_they_say(tmp_path: Path, settings: Any, redis_url: str) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    settings.MORANGO_CELERY_OPLOG = {**settings.MORANGO_CELERY_OPLOG, "FILE": str(tmp_path / "own.log")}
    carried_out = set()
    for one in COMMANDS:
        arguments = arguments_of(one, tmp_path, run=0)
        ours = get_commands()[one.name]
        if not str(ours).startswith("morango_celery") or NOT_RUN.intersection([one.name, *one.arguments]):
            continue
        if one.name in OF_RUNS and "0" in arguments:
            arguments = arguments_of(one, tmp_path, _run_for(one.name).pk)
        if not one.shown.in_block and not _is_complete(one.name, arguments):
            continue
        try:
            call_command(one.name, *arguments, stdout=StringIO(), stderr=StringIO())
        except SystemExit as ended:
            if ended.code not in TELLING.get(one.name, ()):
                pytest.fail(f"{one} ended with {ended.code}")
        carried_out.add(one.name)

    assert len(carried_out) > 8


def _run_for(name: str) -> Run:
    run = new_run(in_process=True)
    if OF_RUNS[name] == Run.State.CANCELLED:
        run.move_to(Run.State.CANCELLED)
    return run


def _is_complete(name: str, arguments: list[str]) -> bool:
    required = [action for action in parser_of(name)._actions if action.required]
    return all(
        any(option in arguments for option in action.option_strings) if action.option_strings else arguments
        for action in required
    )


def test_blocks_show_known_programs_alone() -> None:
    lines = [one for one in shown() if one.in_block and re.match(r"[.\w/-]+ ", one.line)]
    pages = {"deploy", "host", "incident", "mend", "switch-over", "sync-indexes", "upgrade", "quickstart"}
    known = [one for one in lines if one.page.stem in pages]

    assert len(known) > 40
    unknown = [str(one) for one in known if _program(one) not in PROGRAMS]
    assert unknown == [one for one in unknown if "WARNING" in one]


def _program(one: Shown) -> str:
    words = [word for word in one.line.split() if not re.match(r"[A-Z_]+=", word)]
    return words[0]


@pytest.mark.parametrize("one", lines_of("docker compose"), ids=str)
def test_compose_knows_the_command_its_options_and_the_service(one: Shown) -> None:
    services = compose.interpolated(dict.fromkeys(compose.required_variables(), "x"))["services"]
    command, *words = words_of(one.line)[2:]
    if command == "--profile":
        profile, command, *words = words
        assert any(profile in service.get("profiles", ()) for service in services.values())

    assert command in COMPOSE
    named = [word for word in words if not word.startswith("-")]
    if command in ("exec", "run"):
        place = words.index(named[0])
        words, named = words[:place], named[:1]
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= COMPOSE[command]
    values = {word for word in named if "=" in word or "{{" in word}
    assert set(named) - values <= set(services)
    assert {word.partition("=")[0] for word in values if "{{" not in word} <= set(services)


@pytest.mark.parametrize("one", [*lines_of("python -m"), *lines_of(".venv/bin/python -m")], ids=str)
def test_modules_that_are_executed_exist(one: Shown) -> None:
    module = one.line.split()[2]

    assert module == "pip" or find_spec(module) is not None


def test_units_that_are_started_are_those_of_the_kit() -> None:
    units = {Path(name).stem for name in kit.names() if name.endswith(".service")}
    lines = [one.line for one in lines_of("systemctl") if "myproject" in one.line]

    named = {re.sub(r"@\d", "@", word) for line in lines for word in line.split() if "myproject" in word}
    assert len(lines) == 8
    assert named <= units
