"""Dependencies between models, and parents before their children."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import models
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from morango.models import Store, SyncableModel

from morango_celery.deserialization import dependency_graph
from morango_celery.deserialization.dependency_graph import (
    Component,
    component_positions,
    components,
    parents_first,
)
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import WriteStrategy, traits_of
from worker.school.models import PROFILE, Attempt, Feedback, Learner, Lesson, Unit

Define = Callable[..., Any]
Grouped = list[tuple[int, list[Any]]]


@pytest.fixture
def define() -> Iterator[Define]:
    """Return a function that makes a model class known to this test only."""

    def make(name: str, *bases: type, meta: dict[str, Any] | None = None, **attributes: Any) -> Any:
        return type(
            name,
            bases or (SyncableModel,),
            {
                "__module__": __name__,
                "Meta": type("Meta", (), {"app_label": "throwaway", **(meta or {})}),
                "morango_profile": "throwaway",
                "morango_model_name": name.lower(),
                **attributes,
            },
        )

    with isolate_apps():
        yield make


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Component]]:
    """Return the components of a profile in which these models are registered, in this order."""

    def components_of(*registered: Any) -> list[Component]:
        monkeypatch.setattr(dependency_graph, "registered_models", lambda profile: list(registered))
        return list(components.__wrapped__("throwaway"))

    return components_of


def levels(found: list[Component]) -> Grouped:
    return [(component.level, list(component.models)) for component in found]


def key(target: Any, **options: Any) -> Any:
    return models.ForeignKey(target, on_delete=models.CASCADE, **options)


def test_sample_school_has_four_levels_and_one_tree() -> None:
    found = list(components(PROFILE))

    by_level = [{m for c in found if c.level == level for m in c.models} for level in range(4)]
    assert by_level == [{Unit}, {Learner, Lesson}, {Attempt}, {Feedback}]
    assert [component.models for component in found if component.is_tree] == [(Unit,)]
    assert [component.level for component in found] == sorted(component.level for component in found)


def test_models_position_is_that_of_its_component() -> None:
    positions = component_positions(PROFILE)

    assert {name: components(PROFILE)[at].model_names for name, at in positions.items()} == {
        name: [name] for name in ("unit", "learner", "lesson", "attempt", "feedback")
    }
    assert positions["unit"] == 0
    assert positions["attempt"] < positions["feedback"]
    assert "nobody" not in positions


def test_registry_order_does_not_decide(define: Define, group: Callable[..., list[Component]]) -> None:
    top = define("Top")
    middle = define("Middle", top=key(top))
    bottom = define("Bottom", middle=key(middle))

    assert levels(group(bottom, middle, top)) == [(0, [top]), (1, [middle]), (2, [bottom])]


def test_independent_models_share_a_level(define: Define, group: Callable[..., list[Component]]) -> None:
    one, other = define("One"), define("Other")
    both = define("Both", one=key(one), other=key(other))
    alone = define("Alone")

    assert levels(group(one, other, both, alone)) == [(0, [one]), (0, [other]), (0, [alone]), (1, [both])]


def test_tree_is_a_component_of_its_own(define: Define, group: Callable[..., list[Component]]) -> None:
    tree = define("Tree", parent=key("self", null=True))
    leaf = define("Leaf", tree=key(tree))

    found = group(tree, leaf)

    assert levels(found) == [(0, [tree]), (1, [leaf])]
    assert [component.is_tree for component in found] == [True, False]


def test_proxies_of_one_tree_are_deserialized_together(
    define: Define, group: Callable[..., list[Component]]
) -> None:
    # Given Kolibri's shape: foreign keys point at a model that isn't registered, but proxies of it are
    collection = define("Collection", parent=key("self", null=True))
    facility = define("Facility", collection, meta={"proxy": True})
    classroom = define("Classroom", collection, meta={"proxy": True})
    user = define("User", facility=key(facility))
    membership = define("Membership", user=key(user), collection=key(collection))

    # When only the proxies are registered
    found = group(membership, user, classroom, facility)

    # Then they are one tree, and each model that refers to any of them waits for all
    assert levels(found) == [(0, [classroom, facility]), (1, [user]), (2, [membership])]
    assert [component.is_tree for component in found] == [True, False, False]
    assert found[0].model_names == ["classroom", "facility"]


def test_models_wait_for_the_dependencies_that_they_name(
    define: Define, group: Callable[..., list[Component]]
) -> None:
    first = define("First")
    second = define("Second", morango_model_dependencies=(first,))
    third = define("Third", morango_model_dependencies=(second,))

    assert levels(group(third, second, first)) == [(0, [first]), (1, [second]), (2, [third])]


def test_dependencies_that_are_not_registered_do_not_count(
    define: Define, group: Callable[..., list[Component]]
) -> None:
    local = define("Local")
    synced = define("Synced", local=key(local), morango_model_dependencies=(local,))

    assert levels(group(synced)) == [(0, [synced])]


def test_models_that_refer_to_each_other_are_deserialized_together(
    define: Define, group: Callable[..., list[Component]]
) -> None:
    # Given a cycle of three, something it needs, and something that needs it
    base = define("Base")
    one = define("One", base=key(base))
    two = define("Two", one=key(one))
    three = define("Three", two=key(two))
    one.morango_model_dependencies = (three,)
    after = define("After", two=key(two))

    # When they are grouped, in any order of registration
    for registered in ((base, one, two, three, after), (after, three, two, one, base)):
        cycle = [model for model in registered if model in (one, two, three)]
        found = group(*registered)

        # Then the cycle is one component between the two others
        assert levels(found) == [(0, [base]), (1, cycle), (2, [after])]
        assert not any(component.is_tree for component in found)


def test_model_that_spans_tables_waits_for_its_parent(
    define: Define, group: Callable[..., list[Component]]
) -> None:
    # Given multi-table inheritance, and a foreign key to the parent's table, which the child fills too
    person = define("Person")
    teacher = define("Teacher", person)
    badge = define("Badge", person=key(person))

    # Then the child comes after its parent, and who refers to the parent comes after both
    assert levels(group(badge, teacher, person)) == [(0, [person]), (1, [teacher]), (2, [badge])]
    assert traits_of(teacher).write_strategy is WriteStrategy.INDIVIDUAL
    assert traits_of(badge).write_strategy is WriteStrategy.BULK


@pytest.fixture
def six(define: Define) -> list[Any]:
    return [define(f"Model{number}") for number in range(6)]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edges=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=9),
    registered=st.permutations(range(6)),
)
def test_any_dependencies_are_put_in_order(
    six: list[Any],
    group: Callable[..., list[Component]],
    edges: set[tuple[int, int]],
    registered: list[int],
) -> None:
    # Given models with any dependencies between them, in any order of registration
    for number, model in enumerate(six):
        model.morango_model_dependencies = tuple(six[end] for start, end in edges if start == number)

    found = group(*[six[number] for number in registered])

    # Then each model is in one component
    home = {model: component for component in found for model in component.models}
    assert sum(len(component.models) for component in found) == len(home) == 6

    # ... of members that need each other, and nothing of its level or later
    reach = {model: reachable(model) for model in six}
    for model in six:
        expected = {model} | {m for m in six if m in reach[model] and model in reach[m]}
        assert set(home[model].models) == expected
        assert all(home[need].level < home[model].level for need in reach[model] - expected)

    # ... on the lowest level that this allows
    for component in found:
        outside = {home[need].level for m in component.models for need in reach[m]} - {component.level}
        assert component.level == 1 + max(outside, default=-1)


def reachable(model: Any) -> set[Any]:
    found: set[Any] = set()
    waiting = list(model.morango_model_dependencies)
    while waiting:
        if (need := waiting.pop()) not in found:
            found.add(need)
            waiting += need.morango_model_dependencies
    return found


def carrier(number: int, parent: int | None) -> DeserializeTask:
    """Return a record with a parent by number; None for a root."""
    parent_id = "" if parent is None else f"{parent:032x}"
    return DeserializeTask(Store(id=f"{number:032x}", model_name="unit", _self_ref_fk=parent_id))


ORPHAN = 999  # a parent's number that no record has


@given(data=st.data(), number=st.integers(0, 14))
def test_parents_come_first_and_cycles_are_set_apart(data: st.DataObject, number: int) -> None:
    # Given records with parents: others, themselves, missing ones or none
    some = st.sampled_from([None, ORPHAN, *range(number)])
    parents = data.draw(st.lists(some, min_size=number, max_size=number))
    carriers = data.draw(st.permutations([carrier(index, parent) for index, parent in enumerate(parents)]))

    ordered, cyclic = parents_first(carriers)

    # Then no record is lost or doubled
    assert sorted(c.store.id for c in ordered + cyclic) == sorted(c.store.id for c in carriers)

    # ... those that hang on a cycle are set apart
    def hangs_on_cycle(index: int) -> bool:
        seen: set[int] = set()
        at: int | None = index
        while at is not None and at != ORPHAN and at not in seen:
            seen.add(at)
            at = parents[at]
        return at in seen

    assert {int(c.store.id, 16) for c in cyclic} == {i for i in range(number) if hangs_on_cycle(i)}

    # ... and each other record comes after its parent, and knows it
    by_id = {c.store.id: c for c in carriers}
    position = {c.store.id: index for index, c in enumerate(ordered)}
    for each in carriers:
        assert each.parent is by_id.get(each.store._self_ref_fk)
    for each in ordered:
        if each.parent is not None:
            assert position[each.parent.store.id] < position[each.store.id]


def test_chain_longer_than_the_stack_is_put_in_order() -> None:
    chain = [carrier(number, number - 1 if number else None) for number in range(5000)]

    ordered, cyclic = parents_first(reversed(chain))

    assert ordered == chain
    assert cyclic == []
