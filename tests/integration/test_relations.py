"""Instances that models' own code finds when it follows foreign keys."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection
from django.test.utils import CaptureQueriesContext

from morango_celery.deserialize.relations import Relations
from tests.variety.models import Card, Lorry, Person, Region, Town

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
    relations = Relations()
    made = [Card(person_id=owner.pk) for owner in people]
    for card in made:
        relations.bring(card)
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


def test_what_is_not_there_is_djangos_to_say() -> None:
    (card,) = cards([Person(id="ab" * 16)])
    with pytest.raises(ObjectDoesNotExist, match="Person matching query does not exist"):
        _ = card.person
    assert card.issued_at is None  # null


def test_another_value_leads_elsewhere() -> None:
    first, second = person("first"), person("second")
    (card, other) = cards([first] * 2)
    assert card.person == first

    card.person_id = other.person_id = second.pk

    assert (card.person, other.person) == (second, second)


def test_who_drops_an_instance_gets_a_newer_one() -> None:
    (card, other) = cards([person("old")] * 2)
    assert (card.person.name, other.person.name) == ("old", "old")
    Person.objects.update(name="new")

    Card._meta.get_field("person").delete_cached_value(card)

    assert (card.person.name, other.person.name) == ("new", "old")


def test_a_copy_has_what_was_found() -> None:
    (card,) = cards([person("somebody")])
    owner = card.person

    with CaptureQueriesContext(connection) as queries:
        assert copy.copy(card).person is owner
        assert copy.deepcopy(card).person == owner
    assert len(queries) == 0


def test_the_part_of_a_row_in_its_parents_table_is_made_of_the_row_itself() -> None:
    lorry = Lorry(plate="A 1", load_kg=5)
    lorry.save()
    unsaved: Any = Lorry(id=lorry.id, vehicle_ptr_id=lorry.id, plate="B 2", load_kg=5)
    Relations().bring(unsaved)

    assert unsaved.vehicle_ptr.plate == "B 2"


def test_the_way_back_from_one_to_one() -> None:
    (card,) = cards([person("somebody")])
    assert card.person.card is card  # which the table doesn't have yet


def test_what_was_forgotten_is_loaded_again() -> None:
    somebody = person("old")
    relations = Relations()
    card, another = (Card(person_id=somebody.pk) for _ in range(2))
    relations.bring(card)
    assert card.person.name == "old"
    Person.objects.update(name="new")

    relations.forget()
    relations.bring(another)

    assert another.person.name == "new"
