"""A log may bring objects of the models that are named, and of no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from morango_celery.oplog.models import DeadLetter, IngestPosition
from morango_celery.oplog.retry import retry_dead_letters
from tests.library.logs import append, delete, ingest, ingested, letters, save
from tests.library.models import Annex, Book, Branch, Egg, Hen, OldBook, Place, Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)

BOOK = f"{1:032x}"
SUPERUSER: dict[str, Any] = {"username": "mallory", "password": "x", "is_superuser": True, "is_staff": True}


@pytest.fixture
def name(settings: Any) -> Any:
    """Return a function that sets the ingested models."""

    def chosen(*labels: str) -> None:
        settings.MORANGO_CELERY_OPLOG = {"INGEST_MODELS": labels}

    return chosen


def about(label: str, pk: Any, operation: str = "SAVE", **fields: Any) -> str:
    return f"1.5 {operation} " + json.dumps([{"model": label, "pk": pk, "fields": fields}])


@pytest.mark.parametrize("batch", [1, 1000])
@pytest.mark.parametrize("operation", ["SAVE", "DELETE"])
@pytest.mark.parametrize(
    "label",
    [
        "school.account",
        "school.account_user_permissions",
        "school.learner",
        "auth.permission",
        "auth.group",
        "sessions.session",
        "contenttypes.contenttype",
        "morango.store",
        "morango.certificate",
        "morango_celery.run",
        "morango_celery_oplog.ingestposition",
        "library.book_tags",
    ],
)
def test_line_of_a_model_that_is_not_named_is_a_dead_letter(
    log: Path, label: str, operation: str, batch: int
) -> None:
    # Given rows of that model
    model = apps.get_model(label)
    before = list(model._base_manager.values_list())

    # When a log brings one of its objects, or deletes one, or brings one along with others
    key = next(iter(model._base_manager.values_list("pk", flat=True)), 1)
    hidden = json.loads(about(label, key, **SUPERUSER).split(" ", 2)[2])
    shelf = json.loads(save("shelf", 9, name="a").split(" ", 2)[2])
    lines = [
        save("shelf", 1, name="a"),
        about(label, key, operation, **SUPERUSER),
        f"1.5 {operation} " + json.dumps(shelf + hidden),
        save("shelf", 2, name="b"),
    ]
    assert ingested(log, lines, batch).dead_letters == 2

    # Then the rows are unchanged, and the letters say why
    label = model._meta.label
    reason = f"ModelNotIngestedError: MORANGO_CELERY_OPLOG['INGEST_MODELS'] doesn't name {label}."
    assert [letter for _, letter in letters()] == [reason, reason]
    assert set(Shelf.objects.values_list("pk", flat=True)) == {1, 2}
    if model is not IngestPosition:
        assert list(model._base_manager.values_list()) == before
    assert retry_dead_letters().left == 2
    assert [letter for _, letter in letters()] == [reason, reason]


def test_log_makes_no_superuser(log: Path) -> None:
    ingested(log, [about("school.account", 1, **SUPERUSER), save("tag", "a")])
    assert Tag.objects.exists()
    assert not get_user_model().objects.exists()


def test_letter_is_applied_once_its_model_is_named(log: Path, name: Any) -> None:
    name("library.Tag")
    ingested(log, [save("shelf", 1, name="a")])
    assert not Shelf.objects.exists()
    name("library.Tag", "library.Shelf")
    assert retry_dead_letters().applied == 1
    assert Shelf.objects.exists()


def test_letter_of_an_unnamed_model_is_not_applied_with_its_group(log: Path, name: Any) -> None:
    name("library.Hen")
    ingested(log, [save("hen", 1, egg=1), save("egg", 1, hen=1)], 1)
    assert len(letters()) == 2
    assert not Hen.objects.exists()
    assert not Egg.objects.exists()


def test_tables_that_hold_a_part_of_named_objects_are_named_with_them(log: Path, name: Any) -> None:
    name("library.Branch")
    lines = [
        *(save("place", 1, town="A"), save("branch", 1)),
        *(save("place", 2, town="B"), save("branch", 2), save("annex", 2, size=1)),
    ]
    ingested(log, lines)
    assert (Place.objects.count(), Branch.objects.count(), Annex.objects.count()) == (2, 2, 0)
    assert ["Annex" in reason for _, reason in letters()] == [True]


def test_model_is_the_same_through_its_proxies(log: Path, name: Any) -> None:
    name("library.OldBook")
    ingested(log, [save("book", BOOK, title="a"), save("oldbook", f"{2:032x}", title="b")])
    assert (Book.objects.count(), OldBook.objects.count()) == (2, 2)


@pytest.mark.parametrize("labels", [(), ("no.Such",), ("library.Spaceship",)])
def test_with_no_model_named_nothing_is_read_and_the_setting_is(
    log: Path, name: Any, labels: tuple[str, ...]
) -> None:
    append(log, save("shelf", 1, name="a"))
    ingest(log)
    append(log, save("shelf", 2, name="a"))
    name(*labels)
    for arguments in ([str(log)], [str(log), "--follow"], ["--retry-dead-letters"]):
        with pytest.raises(CommandError, match=r"MORANGO_CELERY_OPLOG\['INGEST_MODELS'\] names no installed"):
            call_command("ingest_objects", *arguments)
    assert Shelf.objects.count() == 1
    assert not DeadLetter.objects.exists()


def test_lines_of_other_models_cost_the_others_nothing(log: Path) -> None:
    ingested(log, [save("shelf", 0, name="a"), about("auth.group", 0, name="a")])
    counts = []
    for size in (10, 200):
        first = size * 1000
        lines = [
            line
            for number in range(first, first + size)
            for line in (save("shelf", number, name="a"), about("auth.group", 7, name=str(number)))
        ]
        with CaptureQueriesContext(connection) as queries:
            ingested(log, lines)
        counts.append(sum("library_shelf" in query["sql"] for query in queries))
    assert counts[0] == counts[1]
    assert not Group.objects.exists()


def found(kind: str) -> list[str]:
    messages = [message for message in run_checks(tags=["morango_celery"]) if message.id is not None]
    return [message.msg for message in messages if message.id == f"morango_celery.{kind}"]


def test_check_names_labels_that_are_not_installed(name: Any) -> None:
    name("library.Shelf", "library.Spaceship", "no.App")
    assert found("E002") == [
        f"MORANGO_CELERY_OPLOG['INGEST_MODELS'] names {label!r}, which is not installed."
        for label in ("library.Spaceship", "no.App")
    ]
    assert found("W008") == []


@pytest.mark.parametrize(
    ("label", "power"),
    [
        ("school.Account", "who may do what here"),
        ("school.Account_groups", "who may do what here"),
        ("auth.Permission", "who may do what here"),
        ("auth.Group_permissions", "who may do what here"),
        ("contenttypes.ContentType", "which model a permission is about"),
        ("sessions.Session", "who is logged in here"),
        ("admin.LogEntry", "what the admin shows of who did what"),
        ("morango.Store", "what Morango syncs, and whom it trusts"),
        ("morango_celery.Run", "what is deserialized, recorded and ingested here"),
        ("morango_celery_oplog.DeadLetter", "what is deserialized, recorded and ingested here"),
        ("morango_celery_payloads.Payload", "what is deserialized, recorded and ingested here"),
    ],
)
def test_check_warns_of_models_that_decide_about_more_than_themselves(
    name: Any, label: str, power: str
) -> None:
    name("library.Shelf", label)
    assert found("W008") == [
        f"MORANGO_CELERY_OPLOG['INGEST_MODELS'] lets a log change {label}: whoever can write the log "
        f"decides {power}."
    ]


def test_deleting_a_named_object_cascades_as_its_models_say(log: Path, name: Any) -> None:
    """The cascade is the project's own, and may reach any model."""
    from tests.library.models import Local

    name("library.Shelf")
    Local.objects.create(shelf=Shelf.objects.create(pk=1, name="a"))
    ingested(log, [delete("shelf", 1)])
    assert not Local.objects.exists()
