"""Names of Celery's and kombu's without a promise: each is there, and missed by name if it isn't."""

from __future__ import annotations

import ast
import logging
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from morango_celery import celery_compat, celery_names
from morango_celery.celery_names import NAMES, found, missing_names
from morango_celery.checks import versions
from morango_celery.worker.bootsteps import tell_of_missing_names
from tests.unit.sources import label, modules, used

PLACES = {place: feature for feature, names in NAMES.items() for place in names}

WORDS_OF_OTHERS = {
    *(
        "ack",
        "channels",
        "collect",
        "default",
        "priority",
        "signals",
        "wait",
        "worker",
        "Connection",
        "_pool",
    ),
    *("blocking_read", "create_channel", "handlers", "should_stop", "Message", "_publish"),
    *("TERM_SIGNAL", "frame_handler"),  # under these names, the module for them passes them on
}
"""Last parts of these names that stand for other things too, and are not looked for in the code."""

IN_PLACE = {
    ("worker/raw_messages.py", "restore_by_tag"),  # the method of a subclass, by which it calls its own
    ("worker/pools.py", "get_implementation"),
    ("worker/event_dispatcher.py", "dispatcher_cls"),  # of the project's own app
    ("worker/__main__.py", "find_app"),
    ("worker/__main__.py", "CLIContext"),
}


def test_each_name_is_there() -> None:
    assert list(missing_names()) == []


def test_each_name_has_a_public_api_that_would_replace_it() -> None:
    assert {place for names in NAMES.values() for place, instead in names.items() if not instead} == set()
    assert len(PLACES) == sum(map(len, NAMES.values())), "a name serves two features"


@pytest.mark.parametrize("place", PLACES)
def test_name_that_is_gone_is_missed_with_its_feature(
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given workers, and a release without the name
    if connection.vendor == "sqlite":
        settings.MORANGO_CELERY = {"IN_PROCESS": False}
    remove(place, monkeypatch)

    # When a project is checked, and a worker starts
    found_by_check = {str(message.msg) for message in versions.check_names()}
    with caplog.at_level(logging.ERROR):
        tell_of_missing_names()

    # Then both tell the name, and what it costs
    expected = f"{place} is not there. Without it, there is no {PLACES[place].removeprefix('the ')}."
    assert expected in found_by_check
    assert expected in caplog.messages


def remove(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a name away where it is defined, whether a class has it or gives it to its instances alone."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    if not isinstance(owner, type):
        monkeypatch.delattr(owner, name)
        return
    for base in owner.__mro__:
        if name in vars(base):
            monkeypatch.delattr(base, name)
        code = getattr(vars(base).get("__init__"), "__code__", None)
        if code is not None and name in code.co_names:
            monkeypatch.setattr(base, "__init__", lambda self: None)


def test_what_is_not_there_stands_for_the_default() -> None:
    assert found("no.such.module:name", 5) == 5
    assert found("celery.worker.state:no_such_name", 5) == 5
    assert found("celery.events.dispatcher:EventDispatcher.no_such_name", 5) == 5
    assert found("celery.worker.state:active_requests", 5) is not None
    assert found("celery.events.dispatcher:EventDispatcher._outbound_buffer", 5) == "_outbound_buffer"


def test_names_stand_in_the_module_for_them_alone() -> None:
    names = {place.rpartition(":")[2].rpartition(".")[2] for place in PLACES} - WORDS_OF_OTHERS
    own = {"celery_compat.py", "celery_names.py"}

    elsewhere = {
        (label(path), name)
        for path in modules()
        if label(path) not in own
        for name in used(ast.parse(path.read_text()))
        if name in names
    }
    assert elsewhere <= IN_PLACE, elsewhere - IN_PLACE


class Bare:
    """A channel, a consumer, a request or a worker of a release that lacks all of these names."""

    called_directly = False
    pool = None


def test_code_that_needs_a_missing_name_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    bare: Any = Bare()
    for name in ("_create_client",):
        remove(f"kombu.transport.redis:Channel.{name}", monkeypatch)

    celery_compat.reuse_clients()
    celery_compat.replace_request_for_messages(bare, lambda read: read)
    celery_compat.replace_task_handler(bare, lambda create: create)
    celery_compat.replace_consumers(bare, lambda consume: consume)
    celery_compat.cancel_requests(bare)
    celery_compat.forget_auto_deleted(bare)

    assert celery_compat.pool_pids(bare) == []
    assert celery_compat.readers(bare) == {}
    assert not celery_compat.is_polled(bare)
    assert celery_compat.is_workers_call(bare)
    assert vars(bare) == {"_protected": 1}


def test_missing_name_reads_as_a_sentence() -> None:
    missing = celery_names.Missing("a.b:C.d", "the refusal of malformed messages: one ends a worker")

    assert str(missing) == (
        "a.b:C.d is not there. Without it, there is no refusal of malformed messages: one ends a worker."
    )
