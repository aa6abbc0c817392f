"""docs/reference/commands.md has each command with its options, and each key of the JSON."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest
from django.core.management import load_command_class
from django.core.management.base import BaseCommand

from morango_celery.explanation import json_output as explanation
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
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "morango_celery"
COMMANDS = sorted(
    (".".join(path.relative_to(ROOT).parts[:-3]), path.stem)
    for path in PACKAGE.glob("**/management/commands/[a-z]*.py")
)


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


def test_the_page_has_each_key_of_the_json() -> None:
    section = PAGE.split("### JSON\n")[1].split("\n## ")[0]
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
