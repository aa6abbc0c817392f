"""Lines that can't be applied: kept with their reason, no business of their neighbours, and tried again."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from morango_celery.oplog.lines import Operation, format_line
from morango_celery.oplog.models import DeadLetter
from morango_celery.oplog.retry import retry_dead_letters
from tests.library.logs import append, delete, ingest, ingested, letters, save
from tests.library.models import Author, Book, Card, Careless, Review, Shelf

pytestmark = pytest.mark.django_db(transaction=True)

BOOK, OTHER_BOOK = f"{1:032x}", f"{2:032x}"
SHELF = json.dumps([{"model": "library.shelf", "pk": 1, "fields": {"name": "a"}}])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rubbish", "It is not built like <unix time> SAVE|DELETE <JSON list>."),
        (f"noon SAVE {SHELF}", "It begins with 'noon', which is no unix time."),
        (f"1.5 STORE {SHELF}", "It says 'STORE', which is neither SAVE nor DELETE."),
        ('1.5 SAVE [{"model": "library', "Its JSON can't be read: "),
        ("1.5 SAVE " + "[" * 100_000, "Its JSON can't be read: "),
        ('1.5 SAVE {"model": "library.shelf"}', "Its JSON is not a list of objects."),
        ("1.5 SAVE [7]", "Its JSON has an object without a model."),
        (
            '1.5 SAVE [{"model": "library.shelf", "fields": []}]',
            "Its JSON has an object whose fields",
        ),
        (save("spaceship", 1), "UnknownModelError: No installed app has a model 'library.spaceship'."),
        ('1.5 SAVE [{"model": "nonsense", "fields": {}}]', "UnknownModelError: No installed app has a model"),
        (save("shelf", 1, nam="a"), "FieldDoesNotExist: Shelf has no field named 'nam'"),
        (save("shelf", "one", name="a"), "DeserializationError: "),
        (save("shelf", 1, name="x" * 60), ""),
        (save("shelf", 1, name="nul \x00"), ""),
        (save("shelf", 1, name="a", inside=99), "IntegrityError: "),
        (save("shelf", 1, name="half a pair \ud800"), "UnicodeEncodeError: "),
        (save("shelf", 10**30, name="a"), ""),
        (save("book", BOOK, title="a", isbn="taken"), "IntegrityError: "),
        (save("book", BOOK, title="a", pages=-3), "IntegrityError: "),
        (save("book", BOOK, title=None), "IntegrityError: "),
        (save("book", BOOK, title="a", tags=["none"]), "IntegrityError: "),
        (save("book", BOOK, title="a", tags=7), ""),
        (save("review", 1, book=OTHER_BOOK, author=["Nobody"]), "IntegrityError: "),
        (delete("author", 5), "ProtectedError: "),
        (delete("book", "no key"), "ValidationError: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_line_costs_only_itself(log: Path, line: str, reason: str, request: Any) -> None:
    # Given an object that others stand in the way of
    author = Author.objects.create(pk=5, name="Ada")
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="taken", author=author)
    takes_anything = "sqlite" in request.config.getoption("database") and len(line) > 100 and "xxx" in line
    is_stored = takes_anything or ("nul " in line and request.config.getoption("database") == "sqlite")

    # When a bad line comes among good ones
    good = [save("tag", f"t{number}") for number in range(6)]
    lines = [*good[:3], line, *good[3:]]
    progress = ingested(log, lines)

    # Then these are applied, and that one is kept
    from tests.library.models import Tag

    assert Tag.objects.count() == 6
    if is_stored:
        return
    assert (progress.lines, progress.dead_letters) == (7, 1)
    letter = DeadLetter.objects.get()
    assert letter.reason.startswith(reason), letter.reason
    assert (letter.path, letter.offset) == (str(log), log.read_bytes().index(line.encode()))
    assert letter.text == line
    assert not Shelf.objects.exists()
    assert not Book.objects.filter(pk=BOOK).exists()


def test_line_of_several_objects_is_applied_as_a_whole_or_not_at_all(log: Path) -> None:
    one, other = (json.loads(save("shelf", n, name=n * "a").split(" ", 2)[2])[0] for n in (1, 60))
    other["fields"]["no_such_field"] = 1
    ingested(log, [f"1.5 SAVE {json.dumps([one, other])}"])
    assert not Shelf.objects.exists()
    assert len(letters()) == 1


def test_reference_that_a_deletion_leaves_dangling_is_found_before_the_commit(log: Path) -> None:
    # Given a foreign key that Django does nothing about
    Shelf.objects.create(pk=1, name="a")
    Careless.objects.create(shelf_id=1)
    ingested(log, [save("tag", "a"), delete("shelf", 1), save("tag", "b")])
    assert [reason.partition(":")[0] for _, reason in letters()] == ["IntegrityError"]
    assert Shelf.objects.exists()


def test_mended_letter_is_applied_on_retry(log: Path, capsys: Any) -> None:
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="1")
    ingested(log, [save("book", BOOK, title="a", isbn="1"), save("review", 1, book=BOOK, author=["Ada"])])
    assert len(letters()) == 2

    # When it is tried while nothing has changed, it stays
    with pytest.raises(SystemExit):
        call_command("ingest_objects", "--retry-dead-letters")
    assert "0 dead letters applied, 2 still can't be." in capsys.readouterr().out
    assert set(DeadLetter.objects.values_list("attempts", flat=True)) == {2}

    # When its obstacle is gone, it is applied, and so is the letter that waited for it
    Book.objects.all().delete()
    Author.objects.create(name="Ada")
    call_command("ingest_objects", str(log), "--source=test", "--retry-dead-letters")
    assert "2 dead letters applied, 0 still can't be." in capsys.readouterr().out
    assert Review.objects.get().book.title == "a"
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {DeadLetter.State.APPLIED}


def test_another_sources_letters_are_left_alone(log: Path) -> None:
    append(log, "rubbish")
    ingest(log)
    assert (retry_dead_letters("other").left, retry_dead_letters("test").left) == (0, 1)


@pytest.mark.parametrize("batch", [1, 1000])
@pytest.mark.parametrize("later", [save("book", BOOK, title="new"), delete("book", BOOK)])
def test_letter_never_brings_old_values_back(log: Path, batch: int, later: str) -> None:
    # Given a line that failed, and a later one about the same object that didn't
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="1")
    ingested(log, [save("book", BOOK, title="old", isbn="1"), later], batch)
    Book.objects.get(pk=OTHER_BOOK).delete()

    # When it could be applied now, it isn't
    assert retry_dead_letters().applied == 0
    assert list(Book.objects.values_list("title", flat=True)) == (["new"] if "new" in later else [])
    states = list(DeadLetter.objects.values_list("state", flat=True))
    assert states == (
        [DeadLetter.State.SUPERSEDED] if batch == 1 else []
    )  # in one batch, only the last counts


def test_later_line_that_failed_does_not_make_an_earlier_one_outdated(log: Path) -> None:
    lines = [save("book", BOOK, title="old"), save("book", BOOK, title="new", isbn="1")]
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="1")
    ingested(log, lines, 1)
    assert Book.objects.get(pk=BOOK).title == "old"
    Book.objects.get(pk=OTHER_BOOK).delete()
    assert retry_dead_letters().applied == 1
    assert Book.objects.get(pk=BOOK).title == "new"


def test_letters_of_objects_that_need_each_other_are_applied_together(log: Path) -> None:
    ingested(log, [save("hen", 1, egg=1), save("shelf", 1, name="between"), save("egg", 1, hen=1)], 1)
    assert not letters()
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {DeadLetter.State.APPLIED}


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_lines_of_which_each_breaks_a_constraint_without_the_others_are_applied_together(
    log: Path, batch: int
) -> None:
    # Given a card that refers to an author by name
    before = [save("author", 1, name="ada"), save("card", 1, written_by="ada"), save("book", BOOK, title="a")]
    # When one transaction has given the name to another author: a reference dangles after its first line, and
    # a unique value is taken before its second
    handing_on = [save("author", 1, name="eve"), save("author", 2, name="ada")]
    ingested(log, [*before, "rubbish", *handing_on, save("review", 1, book=BOOK, author=2)], batch)
    # Then both are applied, and so is the line that refers to the other author; only the rubbish is left
    assert list(Author.objects.order_by("pk").values_list("name", flat=True)) == ["eve", "ada"]
    assert (Card.objects.get().written_by_id, Review.objects.get().author_id) == ("ada", 2)
    ((_, reason),) = letters()
    assert "not built like" in reason


@pytest.mark.parametrize("order", [1, -1])
def test_renamed_object_and_what_refers_to_its_name_are_applied_together(log: Path, order: int) -> None:
    before = [save("author", 1, name="ada"), save("card", 1, written_by="ada")]
    renaming = [save("author", 1, name="eve"), save("card", 1, written_by="eve")]
    ingested(log, [*before, *renaming[::order]], 1)
    assert not letters()
    assert (Author.objects.get().name, Card.objects.get().written_by_id) == ("eve", "eve")


ADA, EVE, BOB = (save("author", number, name=name) for number, name in ((1, "ada"), (1, "eve"), (2, "bob")))
CARD = save("card", 1, written_by="ada")
TAKEN = save("book", OTHER_BOOK, title="x", isbn="1", shelf=1)
TAKEN_AGAIN = save("book", BOOK, title="a", isbn="1")


@pytest.mark.parametrize("batch", [1, 2, 1000])
@pytest.mark.parametrize(
    ("before", "refused", "freeing"),
    [
        ([ADA, CARD], EVE, delete("card", 1)),
        ([ADA, BOB, CARD], EVE, save("card", 1, written_by="bob")),
        ([save("shelf", 1, name="a"), TAKEN], TAKEN_AGAIN, delete("shelf", 1)),
        ([BOB, save("book", BOOK, title="a", author=2)], delete("author", 2), delete("book", BOOK)),
    ],
    ids=["deletion", "other reference", "cascade", "protected"],
)
def test_refused_line_is_applied_once_a_later_line_frees_its_way(
    log: Path, before: list[str], refused: str, freeing: str, batch: int
) -> None:
    # Given a line that a constraint refuses
    between = [save("tag", str(number)) for number in range(12)]
    ingested(log, [*before, "rubbish", refused, *between], batch)
    assert len(letters()) == 2
    # When a line far behind it frees its way, by whatever it cascades to
    ingested(log, [save("tag", "last"), freeing], batch)
    # Then it is applied, and only the rubbish is left
    ((_, reason),) = letters()
    assert "not built like" in reason
    assert sorted(DeadLetter.objects.values_list("state", flat=True)) == ["applied", "open"]


def test_retries_of_letters_that_stay_refused_are_bounded(log: Path) -> None:
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="1")

    def statements(number: int) -> int:
        with CaptureQueriesContext(connection) as queries:
            ingested(log, [save("tag", str(number))], 1)
        return len(queries)

    ingested(log, [save("book", str(uuid.UUID(int=n)), title="a", isbn="1") for n in range(100, 120)], 1)
    few = statements(1)
    ingested(log, [save("book", str(uuid.UUID(int=n)), title="a", isbn="1") for n in range(200, 240)], 1)
    assert len(letters()) == 60
    assert statements(2) == few


def test_line_that_waited_is_applied_together_with_the_line_whose_constraint_it_mends(log: Path) -> None:
    # Given a line that leaves a reference dangling, and one that mends this and waits for an object itself
    review = {"model": "library.review", "pk": 1, "fields": {"book": BOOK, "author": 2}}
    ada = {"model": "library.author", "pk": 2, "fields": {"name": "ada"}}
    mending = format_line(1, Operation.SAVE, json.dumps([ada, review]))
    before = [save("author", 1, name="ada"), save("card", 1, written_by="ada")]
    ingested(log, [*before, save("author", 1, name="eve"), mending], 1)
    assert len(letters()) == 2
    # When that object comes
    ingested(log, [save("book", BOOK, title="a")], 1)
    # Then both are applied
    assert not letters()
    assert list(Author.objects.order_by("pk").values_list("name", flat=True)) == ["eve", "ada"]


@pytest.fixture
def operator() -> Client:
    user = get_user_model().objects.create_user("operator", password="x", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["view_deadletter", "change_deadletter"])
    )
    client = Client()
    client.force_login(user)
    return client


def test_admin_shows_letters_and_tries_them_again(log: Path, operator: Client) -> None:
    # Given a letter
    Book.objects.create(pk=OTHER_BOOK, title="x", isbn="1")
    ingested(log, [save("book", BOOK, title="waiting title", isbn="1")])
    letter = DeadLetter.objects.get()
    pages = "/admin/morango_celery_oplog/deadletter/"

    # Then it is in the list, and its page shows all of it and no field to change
    shown = operator.get(f"{pages}?state=open&q=waiting").content.decode()
    assert "IntegrityError" in shown
    assert "Retry the selected lines" in shown
    page = operator.get(f"{pages}{letter.pk}/change/").content.decode()
    assert "waiting title" in page
    assert "<textarea" not in page
    assert operator.get(f"{pages}add/").status_code == 403

    # When it is retried, the page says the result
    def retry() -> str:
        form = {"action": "retry", "_selected_action": [letter.pk]}
        return operator.post(pages, form, follow=True).content.decode()

    assert "0 applied, 1 still can&#x27;t be." in retry()
    Book.objects.get(pk=OTHER_BOOK).delete()
    assert "1 applied, 0 still can&#x27;t be." in retry()
    assert Book.objects.get().title == "waiting title"


def test_viewer_is_offered_no_retry(log: Path) -> None:
    user = get_user_model().objects.create_user("guest", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_deadletter"))
    client = Client()
    client.force_login(user)
    ingested(log, ["rubbish"])
    shown = client.get("/admin/morango_celery_oplog/deadletter/").content.decode()
    assert "rubbish" not in shown
    assert "Try to apply" not in shown


def test_broken_reference_is_found_without_reading_whole_tables(log: Path) -> None:
    with CaptureQueriesContext(connection) as queries:
        ingested(log, [save("tag", "a"), save("shelf", 1, name="a", inside=9), save("tag", "b")])
    assert len(letters()) == 1
    assert not [query for query in queries if "foreign_key_check" in query["sql"]]
