"""Names of objects: by the key's value in the column, for any form of the key in a line."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from morango_celery.oplog.models import DeadLetter
from morango_celery.oplog.retry import retry_dead_letters
from tests.library.logs import append, ingest, ingested, letters, save
from tests.library.models import Annex, Book, Shelf, Tag

pytestmark = pytest.mark.django_db(transaction=True)

ID = uuid.UUID(int=0xABCDEF)
NUMBERS = [1, 1.0, "1", "01", " 1 ", True]
UUIDS = [str(ID), ID.hex, str(ID).upper(), ID.hex.upper(), f"{{{ID}}}", ID.urn]


def states() -> list[str]:
    return list(DeadLetter.objects.order_by("pk").values_list("state", flat=True))


@pytest.mark.parametrize("later", NUMBERS, ids=repr)
@pytest.mark.parametrize("earlier", NUMBERS, ids=repr)
def test_letter_is_superseded_for_any_form_of_a_number(log: Path, earlier: Any, later: Any) -> None:
    # Given a line that waits for another object
    ingested(log, [save("shelf", earlier, name="old", inside=99)])
    assert states() == [DeadLetter.State.OPEN]

    # When a later line about the same object is applied, and then the first one's missing object comes
    ingested(log, [save("shelf", later, name="new")])
    ingested(log, [save("shelf", 99, name="parent")])

    # Then the first one brings nothing back
    assert states() == [DeadLetter.State.SUPERSEDED]
    assert retry_dead_letters().applied == 0
    assert Shelf.objects.get(pk=1).name == "new"


@pytest.mark.parametrize("later", UUIDS)
@pytest.mark.parametrize("model", ["book", "oldbook", "BOOK"])
def test_letter_is_superseded_for_any_form_of_a_uuid(log: Path, model: str, later: str) -> None:
    ingested(log, [save("book", ID.hex, title="old", tags=["none"])])
    ingested(log, [save(model, later, title="new")])
    ingested(log, [save("tag", "none")])
    assert states() == [DeadLetter.State.SUPERSEDED]
    assert Book.objects.get().title == "new"


def test_object_of_several_tables_is_known_by_its_number(log: Path) -> None:
    rows = [save("place", 1, town="A"), save("branch", 1)]
    ingested(log, [save("annex", "1", size=1)])
    ingested(log, [*rows, save("annex", 1.0, size=2)])
    assert states() in ([DeadLetter.State.SUPERSEDED], [DeadLetter.State.APPLIED])
    assert Annex.objects.get().size == 2


def test_earlier_line_of_a_batch_is_outdated_for_any_form_of_its_key(log: Path) -> None:
    ingested(log, [save("shelf", "01", name="old", no_such_field=1), save("shelf", 1, name="new")])
    assert states() == [DeadLetter.State.SUPERSEDED]


@pytest.mark.parametrize("arriving", NUMBERS, ids=repr)
@pytest.mark.parametrize("wanted", NUMBERS, ids=repr)
def test_letter_gets_its_missing_object_in_any_form(log: Path, wanted: Any, arriving: Any) -> None:
    ingested(log, [save("shelf", 7, name="child", inside=wanted)])
    assert len(letters()) == 1
    ingested(log, [save("shelf", arriving, name="parent")])
    assert not letters()
    assert Shelf.objects.get(pk=7).inside_id == 1


@pytest.mark.parametrize("arriving", UUIDS)
def test_letter_gets_the_many_to_many_value_it_waits_for(log: Path, arriving: str) -> None:
    ingested(log, [save("branch", 5, books=[ID.hex]), save("place", 5, town="A")])
    ingested(log, [save("book", arriving, title="a")])
    assert not letters()


def test_key_that_no_column_holds_is_known_by_its_text(log: Path) -> None:
    for key in ("one", {"a": 1}, [1]):
        append(log, "1.5 SAVE " + json.dumps([{"model": "library.shelf", "pk": key, "fields": {}}]))
    ingest(log)
    keys = DeadLetter.objects.order_by("pk").values_list("objects_of_letter__key", flat=True)
    assert list(keys) == ["library.shelf:one", "library.shelf:{'a': 1}", "library.shelf:[1]"]


def test_texts_that_differ_are_different_objects(log: Path) -> None:
    ingested(log, [save("tag", "01", no_such_field=1), save("tag", "1"), save("tag", 1)])
    assert states() == [DeadLetter.State.OPEN]
    assert list(Tag.objects.values_list("pk", flat=True)) == ["1"]
