"""Private names of Celery, kombu, billiard, Django and Morango, and the one module that each may stand in."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

import morango_celery
from morango_celery import celery_compat, django_compat, upstream
from morango_celery.checks import versions
from tests.unit import sources
from tests.unit.sources import label, modules, used

COMPAT = {"celery_compat.py", "django_compat.py", "upstream.py"}
"""Modules of `morango_celery` for private names, by file."""

DOCUMENTED = {"_meta", "_state", "_base_manager", "_default_manager", "_replace", "_fields", "_asdict"}
"""Names that Django and Python document in spite of their underscores."""

DATA_MODEL = {
    "_morango_dirty_bit",
    "_morango_partition",
    "_morango_source_id",
    "_morango_internal_fields_not_to_serialize",
    "_self_ref_fk",
}
"""Columns and class attributes that each module with such rows reads or writes."""

EXCEPTIONS = {
    ("operations.py", "_assert"),  # a method for subclasses of Morango's operations
    ("worker/shutdown.py", "_exit"),  # os._exit, which Python documents
    ("management/deadline.py", "_exit"),  # the same
    ("admin/runs.py", "_FieldsetSpec"),  # a type of django-stubs, imported by type checkers alone
    ("admin/batches.py", "_FieldsetSpec"),  # the same
}

FOREIGN = ("celery", "kombu", "billiard", "django", "morango", "vine", "amqp")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines: functions, classes, variables, and attributes of self or cls."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                yield node.attr


def foreign_names(paths: list[Path]) -> set[tuple[str, str]]:
    """Return file and name of each private name that none of the modules defines."""
    trees = {label(path): ast.parse(path.read_text()) for path in paths}
    own = {name for file, tree in trees.items() if file not in COMPAT for name in defined(tree)}
    found = {(file, name) for file, tree in trees.items() if file not in COMPAT for name in used(tree)}
    return {
        (file, name) for file, name in found if is_private(name) and name not in own | DOCUMENTED | DATA_MODEL
    }


def test_private_names_of_others_stand_in_the_modules_for_them() -> None:
    assert foreign_names(modules()) == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    [
        "rows._raw_delete('default')",
        "from celery.utils import _private",
        "import kombu._private",
        "getattr(channel, '_brpop_start', None)",
    ],
)
def test_a_private_name_elsewhere_is_found(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    module = tmp_path / "morango_celery" / "module.py"
    module.parent.mkdir()
    module.write_text(f"{line}\n")

    assert {file for file, _ in foreign_names(modules())} == {"module.py"}


def test_no_driver_of_postgresql_is_imported_by_the_package() -> None:
    """A project has psycopg2 or psycopg 3, as Django finds it."""
    imported = {
        (label(path), name)
        for path in modules()
        if "morango_celery" in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert ("db/driver.py", "io") in imported
    assert {name for name in imported if name[1].partition(".")[0] in ("psycopg", "psycopg2")} == set()


def overriding_classes() -> Iterator[tuple[str, str]]:
    """Yield file and name of each private attribute of a foreign class that a class here overrides."""
    for found in pkgutil.walk_packages(morango_celery.__path__, "morango_celery."):
        if found.name.endswith("__main__") or ".contrib." in found.name or ".migrations" in found.name:
            continue
        module = importlib.import_module(found.name)
        for each in vars(module).values():
            if inspect.isclass(each) and each.__module__ == module.__name__:
                file = label(Path(inspect.getfile(module)))
                yield from ((file, name) for name in vars(each) if _is_foreign(each, name))


def _is_foreign(own: type[Any], name: str) -> bool:
    return (
        is_private(name)
        and name not in DOCUMENTED
        and any(base.__module__.split(".")[0] in FOREIGN and name in vars(base) for base in own.__mro__[1:])
    )


def test_private_methods_of_others_are_overridden_in_the_modules_for_them_alone() -> None:
    overridden = set(overriding_classes())

    assert {file for file, _ in overridden} <= COMPAT
    assert ("celery_compat.py", "_publish") in overridden
    assert ("django_compat.py", "_has_signal_listeners") in overridden


@pytest.mark.parametrize("module", [celery_compat, django_compat, upstream])
def test_private_names_were_checked_against_the_installed_releases(module: Any) -> None:
    checked = {name: versions.CHECKED[name] for name in module.CHECKED}
    assert {name for name, releases in checked.items() if version(name) not in releases} == set()


@pytest.mark.parametrize(
    ("installed", "is_known"), [("5.7.0", True), ("5.7.9", True), ("5.8.0", False), ("6.7.0", False)]
)
def test_a_package_of_another_series_is_warned_of(
    installed: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name: releases[0] for name, releases in versions.CHECKED.items()}
    monkeypatch.setattr(versions, "version", {**known, "celery": installed}.__getitem__)

    found = [
        message for message in run_checks(tags=["morango_celery"]) if message.id == "morango_celery.W011"
    ]

    assert [message.msg for message in found] == (
        []
        if is_known
        else [
            f"celery {installed} is installed. Private names of it that morango_celery relies on were "
            "checked against 5.7.0."
        ]
    )


def test_each_checked_series_of_django_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(installed: str) -> list[str]:
        known = {name: releases[0] for name, releases in versions.CHECKED.items()}
        monkeypatch.setattr(versions, "version", {**known, "Django": installed}.__getitem__)
        messages = versions.check_versions()
        return [f"{message.msg} {message.hint}" for message in messages]

    assert [found(release) for release in ("3.2.24", "4.2.30", "5.2.1")] == [[], [], []]
    assert found("5.1.2") == [
        "Django 5.1.2 is installed. Private names of it that morango_celery relies on were checked against "
        "3.2.25, 4.2.30 and 5.2.19. Install Django 3.2.*, 4.2.* or 5.2.*, or a morango_celery for Django 5.1."
    ]
