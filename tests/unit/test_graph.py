"""Components and levels of directed graphs, compared with their definitions."""

from __future__ import annotations

from graphlib import CycleError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morango_celery.deserialization.graph import levels, strongly_connected_components

Graph = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a graph of a few nodes, in any order, with any edges, loops included."""
    nodes = draw(st.permutations(range(draw(st.integers(0, 8)))))
    return {node: draw(st.lists(st.sampled_from(nodes), unique=True)) for node in nodes}


def reachable(graph: Graph, start: int) -> set[int]:
    """Return the nodes that a walk of at least one edge leads to."""
    seen: set[int] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph[node])
    return seen


@given(graphs())
def test_nodes_of_a_component_reach_each_other_and_no_others_do(graph: Graph) -> None:
    components = strongly_connected_components(graph)

    assert sorted(node for component in components for node in component) == sorted(graph)
    component_of = {node: index for index, component in enumerate(components) for node in component}
    for one in graph:
        for other in graph.keys() - {one}:
            together = other in reachable(graph, one) and one in reachable(graph, other)
            assert (component_of[one] == component_of[other]) == together


@given(graphs())
def test_dependencies_come_first_and_a_component_keeps_the_order_of_the_keys(graph: Graph) -> None:
    components = strongly_connected_components(graph)

    component_of = {node: index for index, component in enumerate(components) for node in component}
    assert all(component_of[need] <= component_of[node] for node, needs in graph.items() for need in needs)
    order = list(graph)
    assert all(component == sorted(component, key=order.index) for component in components)


def test_long_chain_needs_no_recursion() -> None:
    chain = {number: [number + 1] for number in range(5_000)} | {5_000: []}

    assert strongly_connected_components(chain) == [[number] for number in reversed(chain)]


@given(graphs())
def test_level_is_one_more_than_the_highest_dependency(graph: Graph) -> None:
    order = list(graph)
    acyclic = {
        node: [n for n in needs if order.index(n) < order.index(node)] for node, needs in graph.items()
    }

    found = levels(acyclic)

    assert found == {
        node: 1 + max((found[need] for need in needs), default=-1) for node, needs in acyclic.items()
    }


def test_cycle_has_no_levels() -> None:
    with pytest.raises(CycleError):
        levels({1: [2], 2: [1]})
