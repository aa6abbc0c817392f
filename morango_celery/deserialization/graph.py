"""Directed graphs: components of nodes that reach each other, and levels of dependencies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import TypeVar

Node = TypeVar("Node")


def strongly_connected_components(needs: Mapping[Node, Sequence[Node]]) -> list[list[Node]]:
    """Return the components of a graph, dependencies first. Nodes of one component reach each other.

    :param needs: the nodes that each node leads to, all of them among the keys
    :returns: the nodes of each component in the order of the keys
    """
    needed_by: dict[Node, list[Node]] = {node: [] for node in needs}
    for node, targets in needs.items():
        for target in targets:
            needed_by[target].append(node)
    last_first = reversed(_postorder(needs, needed_by, set()))
    # Kosaraju: backwards from nodes without successors, each walk stays inside one component
    seen: set[Node] = set()
    walks = [_postorder([node], needs, seen) for node in last_first]
    position = {node: index for index, node in enumerate(needs)}
    return [sorted(walk, key=position.__getitem__) for walk in walks if walk]


def levels(needs: Mapping[Node, Collection[Node]]) -> dict[Node, int]:
    """Return the level of each node: 0 without dependencies, else one more than the highest of these.

    :param needs: dependencies of each node, all of them among the keys
    :raises CycleError: there is a cycle
    """
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    found: dict[Node, int] = {}
    level = 0
    while sorter.is_active():
        ready = sorter.get_ready()
        found.update(dict.fromkeys(ready, level))
        sorter.done(*ready)
        level += 1
    return found


def _postorder(starts: Iterable[Node], edges: Mapping[Node, Sequence[Node]], seen: set[Node]) -> list[Node]:
    """Walk depth first from each start, and return the nodes in the order in which they were left."""
    postorder = []
    for start in starts:
        if start in seen:
            continue
        seen.add(start)
        path = [(start, iter(edges[start]))]
        while path:
            node, ahead = path[-1]
            following = next((other for other in ahead if other not in seen), None)
            if following is None:
                postorder.append(node)
                path.pop()
            else:
                seen.add(following)
                path.append((following, iter(edges[following])))
    return postorder
