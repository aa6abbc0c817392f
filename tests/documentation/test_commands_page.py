"""docs/reference/commands.md has each command with its options, and each key of the JSON."""

from __future__ import annotations

import re
from typing import Any, get_type_hints

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from morango_celery.explanation import json_output as explanation
from morango_celery.management import results
from morango_celery.management.base import ALWAYS, INTERRUPTED
from morango_celery.management.commands.deserialize import Command as Deserialize
from morango_celery.management.dry_run_output import DryRunJson, DryStageJson, LocalEditsJson
from morango_celery.management.json_output import (
    BatchesJson,
    ComparisonsJson,
    JudgementJson,
    ProblemJson,
    RecordsJson,
    RunJson,
    RunListJson,
    WorkersJson,
)
from morango_celery.management.run_command import TIMED_OUT
from tests.support.processes import ROOT

RESULTS: dict[str, Any] = {
    "recover_runs": results.RecoveredJson,
    "pause_runs": results.PausedJson,
    "resume_runs": results.ResumedJson,
    "create_sync_indexes": results.IndexesJson,
    "ingest_objects": results.IngestedJson,
    "ingest_objects --retry-dead-letters": results.RetriedJson,
    "record_objects": results.RecordedJson,
    "prune_runs": results.PrunedRunsJson,
    "prune_oplog": results.PrunedOplogJson,
    "prune_payloads": results.PrunedPayloadsJson,
    "prune_payloads --delete": results.DeletedPayloadJson,
}

PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "morango_celery"
COMMANDS = sorted(
    (".".join(path.relative_to(ROOT).parts[:-3]), path.stem)
    for path in PACKAGE.glob("**/management/commands/[a-z]*.py")
)


def statuses_of(command: BaseCommand) -> set[str]:
    """Return the exit statuses that a command's help ends with."""
    epilog = command.create_parser("manage.py", "command").epilog or ""
    return set(re.findall(r"^ +(\d+) ", epilog, re.MULTILINE))


def options_of(command: BaseCommand) -> set[str]:
    parser = command.create_parser("manage.py", "command")
    return {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    }


def keys_of(table: str) -> set[str]:
    """Return the names in the first column of a table."""
    return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE))))


@pytest.mark.parametrize(("app", "name"), COMMANDS, ids=[name for _, name in COMMANDS])
def test_the_page_has_each_option_of_a_command(app: str, name: str) -> None:
    usages = " ".join(re.findall(rf"^manage\.py {name}\b.*$", PAGE, re.MULTILINE))
    own = options_of(load_command_class(app, name)) - options_of(BaseCommand())

    assert usages
    assert set(re.findall(r"--[a-z-]+", usages)) == own


def test_the_page_has_each_exit_status_of_each_command() -> None:
    section = PAGE.split("## Exit statuses\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\d+)` \| .* \| ([^|]+) \|$", section, re.MULTILINE)
    every = {name for _, name in COMMANDS}
    found: dict[str, set[str]] = {name: set() for name in every}
    for status, commands in rows:
        for name in every if commands == "all" else re.findall(r"`(\w+)", commands):
            found[name].add(status)

    always = set(map(str, ALWAYS))
    assert found == {name: statuses_of(load_command_class(app, name)) | always for app, name in COMMANDS}


def test_statuses_are_those_that_are_used_and_help_shows_them() -> None:
    deserialize = Deserialize()
    shown = deserialize.create_parser("manage.py", "deserialize").format_help()

    assert shown.endswith(deserialize.exit_statuses)
    assert f"  {TIMED_OUT}  the run has not ended within --timeout" in shown
    assert f"  {INTERRUPTED}  interrupted by Ctrl-C" in shown


def test_the_page_has_each_key_of_a_result() -> None:
    section = PAGE.split("## JSON\n")[1].split("\n## ")[0]
    described = {
        command: set(re.findall(r"`(\w+)`", keys))
        for command, keys in re.findall(r"^\| `([^`]+)` \| (`version`.*) \|$", section, re.MULTILINE)
    }

    assert described == {command: set(get_type_hints(keys)) for command, keys in RESULTS.items()}


@pytest.mark.parametrize(("app", "name"), COMMANDS, ids=[name for _, name in COMMANDS])
def test_each_command_writes_json_and_the_page_says_which(app: str, name: str) -> None:
    section = PAGE.split("## JSON\n")[1].split("\n## ")[0]

    assert "--json" in options_of(load_command_class(app, name))
    assert f"`{name}" in section


def test_the_page_has_each_key_of_the_json() -> None:
    section = PAGE.split("### JSON of a status\n")[1].split("\n## ")[0]
    of_both, rest = section.split("\nA run has:\n")
    of_a_run, of_a_list = rest.split("\nWithout a number, the object has:\n")

    assert keys_of(of_both) == set(get_type_hints(JudgementJson))
    assert keys_of(of_both) | keys_of(of_a_run) == set(get_type_hints(RunJson))
    assert keys_of(of_both) | keys_of(of_a_list) == set(get_type_hints(RunListJson))
    for name, nested in (("problems", ProblemJson), ("batches", BatchesJson), ("records", RecordsJson)):
        assert set(get_type_hints(nested)) <= keys_in_row(section, name)
    for name, nested in (("comparisons", ComparisonsJson), ("workers", WorkersJson)):
        assert set(get_type_hints(nested)) <= keys_in_row(of_a_list, name)


def test_the_page_has_each_key_of_a_dry_run() -> None:
    section = PAGE.split("### A dry run")[1].split("\n## ")[0]

    assert keys_of(section) == set(get_type_hints(DryRunJson))
    assert keys_in_row(section, "stages") == set(get_type_hints(DryStageJson))
    assert keys_in_row(section, "local_edits") == set(get_type_hints(LocalEditsJson))


def test_the_page_has_each_key_of_an_explanation() -> None:
    section = PAGE.split("### JSON of an explanation")[1].split("## ")[0]
    whole, of_a_model = section.split("A model:")

    assert keys_of(whole) == set(get_type_hints(explanation.ExplanationJson))
    assert keys_of(of_a_model) == set(get_type_hints(explanation.ModelJson))
    for name, nested in (
        ("profiles", explanation.ProfileJson),
        ("depends_on", explanation.DependencyJson),
        ("reasons", explanation.ReasonJson),
        ("reasons", explanation.CodeJson),
        ("equivalent", explanation.EquivalentJson),
        ("statements", explanation.StatementsJson),
    ):
        assert set(get_type_hints(nested)) <= keys_in_row(section, name), name


def keys_in_row(table: str, name: str) -> set[str]:
    """Return the names in the second column of a row."""
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", table, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))
