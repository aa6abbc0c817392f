"""Instances that models' own code finds when it follows foreign keys."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection
from django.test.utils import CaptureQueriesContext

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.parse import instantiate, rebuild
from morango_celery.deserialization.prefetch import LazyPrefetcher
from morango_celery.deserialization.task import DeserializeTask
from tests.model_zoo.models import Card, Lorry, Person, Region, Town
from tests.neighbours.models import Place
from tests.neighbours.rows import build_row

pytestmark = pytest.mark.django_db


def person(name: str) -> Person:
    region = Region(name=f"region of {name}")
    region.save()
    town = Town(name=f"town of {name}", parent=region)
    town.save()
    found = Person(name=name, home=town)
    found.save()
    return found


def cards(people: list[Person]) -> list[Any]:
    """Unsaved, as they are when a model's code sees them."""
    prefetcher = LazyPrefetcher()
    made = [Card(person_id=owner.pk) for owner in people]
    for card in made:
        prefetcher.track(card)
    return made


@pytest.mark.parametrize("number", [1, 5])
def test_all_peers_are_loaded_at_once(number: int) -> None:
    people = [person(f"person {place}") for place in range(number)]
    made = cards(people)

    with CaptureQueriesContext(connection) as queries:
        found = [card.person.home.parent.name for card in made]

    assert found == [f"region of person {place}" for place in range(number)]
    assert len(queries) == 3  # people, their homes, and the regions


def test_nothing_is_loaded_that_nobody_asks_for() -> None:
    somebody = person("somebody")
    with CaptureQueriesContext(connection) as queries:
        (card,) = cards([somebody])
        assert not Card._meta.get_field("person").is_cached(card)
    assert len(queries) == 0


def test_absent_target_is_djangos_error() -> None:
    (card,) = cards([Person(id="ab" * 16)])
    with pytest.raises(ObjectDoesNotExist, match="Person matching query does not exist"):
        _ = card.person
    assert card.issued_at is None  # null


def test_changed_reference_leads_to_its_new_target() -> None:
    first, second = person("first"), person("second")
    (card, other) = cards([first] * 2)
    assert card.person == first

    card.person_id = other.person_id = second.pk

    assert (card.person, other.person) == (second, second)


def test_dropped_instance_is_replaced_by_a_newer_one() -> None:
    (card, other) = cards([person("old")] * 2)
    assert (card.person.name, other.person.name) == ("old", "old")
    Person.objects.update(name="new")

    Card._meta.get_field("person").delete_cached_value(card)

    assert (card.person.name, other.person.name) == ("new", "old")


def test_copy_has_what_was_found() -> None:
    (card,) = cards([person("somebody")])
    owner = card.person

    with CaptureQueriesContext(connection) as queries:
        assert copy.copy(card).person is owner
        assert copy.deepcopy(card).person == owner
    assert len(queries) == 0


def test_part_of_a_row_in_its_parents_table_is_made_of_the_row_itself() -> None:
    lorry = Lorry(plate="A 1", load_kg=5)
    lorry.save()
    unsaved: Any = Lorry(id=lorry.id, vehicle_ptr_id=lorry.id, plate="B 2", load_kg=5)
    LazyPrefetcher().track(unsaved)

    assert unsaved.vehicle_ptr.plate == "B 2"


def test_one_to_one_leads_back_to_the_record() -> None:
    (card,) = cards([person("somebody")])
    assert card.person.card is card  # which the table doesn't have yet


def places(*parents: Place | None) -> list[Place]:
    """Return saved places, each with a parent."""
    made = [Place(name=f"place {number}", parent=parent) for number, parent in enumerate(parents)]
    for place in made:
        place.save()
    return made


def below(prefetcher: LazyPrefetcher, parents: list[Place]) -> list[Any]:
    """Unsaved, each with a parent."""
    made = [Place(parent_id=parent.pk) for parent in parents]
    for place in made:
        prefetcher.track(place)
    return made


def test_row_that_is_yet_to_be_written_is_seen_by_others_as_it_was_written() -> None:
    parents, prefetcher = places(None, None), LazyPrefetcher()
    for parent in parents:
        prefetcher.expect(Place, parent.pk)
    early, first, second = below(prefetcher, [parents[0], *parents])
    assert early.parent.name == "place 0"

    Place.objects.update(name="new")
    for parent in parents:
        prefetcher.written(parent.pk)

    with CaptureQueriesContext(connection) as queries:
        assert [place.parent.name for place in (early, first, second)] == ["place 0", "new", "new"]
    assert len(queries) == 1


def test_another_row_does_not_keep_one_that_is_yet_to_be_written() -> None:
    (top,) = places(None)
    (between,) = places(top)
    prefetcher = LazyPrefetcher()
    prefetcher.expect(Place, top.pk)
    (one, other) = below(prefetcher, [between] * 2)
    assert one.parent.parent.name == "place 0"

    Place.objects.filter(pk=top.pk).update(name="new")
    prefetcher.written(top.pk)

    assert other.parent.parent.name == "new"


def test_row_that_another_writes_is_looked_up_again() -> None:
    parents, prefetcher = places(None), LazyPrefetcher()
    one, other = below(prefetcher, parents * 2)
    assert one.parent.name == "place 0"
    Place.objects.update(name="new")

    prefetcher.before_statement('SELECT * FROM "neighbours_place"')
    prefetcher.before_statement('UPDATE "another_table" SET "name" = 1')
    assert other.parent.name == "place 0"
    (another,) = below(prefetcher, parents)
    prefetcher.before_statement('UPDATE "neighbours_place" SET "name" = 1')

    assert another.parent.name == "new"


def test_save_that_must_see_each_row_is_left_to_django(settings: Any) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": ["neighbours.Guest"]}
    (place,) = places(None)
    context = BatchContext("neighbours")
    carriers: Any = [
        DeserializeTask(build_row("guest", place_id=place.pk), context.fk_cache) for _ in range(2)
    ]
    for carrier in carriers:
        context.attach(carrier.model, instantiate(carrier, context))
    seen_together = carriers[0].app_model.place is carriers[1].app_model.place

    for carrier in carriers:
        rebuild(carrier, context)

    seen_again = carriers[0].app_model.place is carriers[1].app_model.place
    assert (seen_together, seen_again) == (True, False)


def test_forgotten_targets_are_loaded_again() -> None:
    somebody = person("old")
    prefetcher = LazyPrefetcher()
    card, another = (Card(person_id=somebody.pk) for _ in range(2))
    prefetcher.track(card)
    assert card.person.name == "old"
    Person.objects.update(name="new")

    prefetcher.forget()
    prefetcher.track(another)

    assert another.person.name == "new"
