"""Sound records of every kind, for broken ones to stand among.

What a broken record may take away from a sound one (a unique value, a place in a trail) it isn't given:
broken ones are made from `templates`, which share nothing with the sound ones but what they refer to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from morango.models import Store

from tests.model_zoo.models import PROFILE as MODEL_ZOO
from tests.model_zoo.rows import build_zoo_row
from tests.support.factories import build_school, build_store_row
from worker.school.models import PROFILE as SCHOOL


@dataclass(frozen=True)
class World:
    """The records of one profile."""

    profile: str
    healthy: tuple[Store, ...]
    targets: tuple[Store, ...]
    """Healthy ones that broken ones may refer to by any foreign key, in any number."""
    templates: tuple[Callable[[str, int], Store], ...]
    """Each makes one record of a kind, sound as yet, from a name and a number that no other has."""


def school() -> World:
    sound = list(build_school(60))
    targets = [build_store_row("unit", source_id="target")]
    targets.append(build_store_row("learner", source_id="target", unit=targets[0]))
    targets.append(build_store_row("lesson", source_id="target", unit=targets[0]))
    targets.append(build_store_row("attempt", source_id="target", learner=targets[1], lesson=targets[2]))
    unit, learner, lesson, attempt = targets
    return World(
        SCHOOL,
        (*sound, *targets),
        tuple(targets),
        (
            lambda name, _: build_store_row("unit", source_id=name, parent=unit, parent_id=unit.id),
            lambda name, _: build_store_row("learner", source_id=name, unit=unit, username=name),
            lambda name, _: build_store_row("lesson", source_id=name, unit=unit),
            lambda name, _: build_store_row("attempt", source_id=name, learner=learner, lesson=lesson),
            lambda name, _: build_store_row("feedback", source_id=name, attempt=attempt),
        ),
    )


def model_zoo() -> World:
    def build(model_name: str, place: int, **fields: object) -> Store:
        return build_zoo_row(model_name, source_id=f"{model_name}-{place}", **fields)

    sound: list[Store] = []
    for number in range(5):
        region = build("region", number)
        town = build("town", number, parent_id=region.id)
        person = build("person", number, home=town, name=f"Person {number}")
        club = build("club", number)
        member = build("member", number, club=club, number=77_000 + number)
        club = build("club", number, president_id=member.id)
        sound += [region, town, person, member, club]
        sound.append(build("card", number, person=person, issued_at_id=town.id))
        sound.append(build("lorry", number, plate=f"SOUND-{number}", owner_id=person.id))
        sound.append(build("step", number, trail="sound", number=number + 1))
        sound.append(build("letter", number, text=f"Text {number}", sender_id=member.id))
        sound.append(build("sample", number, data={"number": number}, price="1.50", words="a b"))
        sound.append(build("reading", number, big=number))
        sound.append(build("visit", number, person=person))
    region, town = build("region", 100), build("town", 100)
    person, club = build("person", 100, home=town), build("club", 100)
    member = build("member", 100, club=club, number=77_100)
    return World(
        MODEL_ZOO,
        (*sound, region, town, person, club, member),
        (region, town, person, club, member),
        (
            lambda name, _: build_zoo_row("region", source_id=name, parent_id=region.id),
            lambda name, _: build_zoo_row("town", source_id=name, parent_id=region.id),
            lambda name, _: build_zoo_row("person", source_id=name, home=town),
            lambda name, _: build_zoo_row("card", source_id=name, person=person, issued_at_id=town.id),
            lambda name, _: build_zoo_row("club", source_id=name, president_id=member.id),
            lambda name, number: build_zoo_row("member", source_id=name, club=club, number=number),
            lambda name, number: build_zoo_row("lorry", source_id=name, plate=f"{number}", load_kg=7),
            lambda name, _: build_zoo_row("step", source_id=name, trail=name[:20], number=1),
            lambda name, _: build_zoo_row("letter", source_id=name, sender_id=member.id),
            _sample,
            lambda name, _: build_zoo_row("reading", source_id=name, small=1, big=2, positive=3),
            lambda name, _: build_zoo_row("visit", source_id=name, person=person),
        ),
    )


def _sample(name: str, number: int) -> Store:
    return build_zoo_row(
        "sample",
        source_id=name,
        words="some words",
        flag=True,
        small=1,
        big=2,
        positive=3,
        price="1.50",
        ratio=0.5,
        day="2026-01-02",
        hour="03:04:05",
        moment="2026-01-02T03:04:05Z",
        length="P1DT00H00M00S",
        slug="a-b",
        mail="a@example.org",
        link="http://a.example",
        address="10.0.0.1",
        other_id="ab" * 16,
        data={"a": [1, 2]},
        color="red",
    )
