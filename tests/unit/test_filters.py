"""Sync filters: nonsense is refused, and no row matches two of a filter's conditions."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.models import Q
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.errors import InvalidFilterError
from morango_celery.reading.filters import PartitionOrder, parse_filter, prefix_conditions
from tests import factories


def test_no_filter_stands_for_the_whole_profile() -> None:
    assert parse_filter(None) is None


@pytest.mark.parametrize("given_filter", [Filter("a b"), Filter("")])
def test_a_filter_of_morangos_is_taken_as_it_is(given_filter: Filter) -> None:
    assert parse_filter(given_filter) is given_filter


@pytest.mark.parametrize(
    "value",
    ["5c:units\n5c:learner", ["5c:units", "5c:learner"], ("5c:units", "5c:learner")],
)
def test_texts_become_a_filter(value: Any) -> None:
    assert list(parse_filter(value) or ()) == ["5c:units", "5c:learner"]


def test_a_generator_of_prefixes_will_do() -> None:
    assert list(parse_filter(f"5c:{number}" for number in range(2)) or ()) == ["5c:0", "5c:1"]


EMPTY = "An empty filter prefix would match every partition. Leave the filter out to mean that."


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", EMPTY),
        ("  ", EMPTY),
        ("5c\n", EMPTY),
        (["5c", ""], EMPTY),
        ([], "The filter has no prefix. Leave it out to take the whole profile."),
        (iter([]), "The filter has no prefix. Leave it out to take the whole profile."),
        ([None], "A filter prefix is a text, not None."),
        ([b"5c"], "A filter prefix is a text, not b'5c'."),
        (
            "${school_id}:units",
            "The filter prefix '${school_id}:units' is an unfilled template: put a value in place of ${...}.",
        ),
        (
            "5c 6d",
            "The filter prefix '5c 6d' contains white space or a control character; "
            "partitions don't. Give several prefixes separately.",
        ),
        (["5c\t"], "The filter prefix '5c\\t' contains white space"),
        (["5c\x00"], "The filter prefix '5c\\x00' contains white space or a control character"),
        (["5c\u200b"], "The filter prefix '5c\\u200b' contains white space or a control character"),
        (["5c\n6d"], "The filter prefix '5c\\n6d' contains white space"),
    ],
)
def test_a_malformed_filter_is_refused_with_its_reason(value: Any, problem: str) -> None:
    with pytest.raises(InvalidFilterError) as refused:
        parse_filter(value)

    assert str(refused.value).startswith(problem)


def test_without_a_filter_one_condition_matches_everything() -> None:
    assert list(prefix_conditions("partition", None)) == [Q()]


def test_nested_prefixes_need_one_condition() -> None:
    conditions = list(prefix_conditions("partition", Filter("5c:learner 5c 5c:units 5c")))

    assert conditions == [Q(partition__startswith="5c")]


# Few characters, so that prefixes nest and overlap; with both wildcards of LIKE and its escape,
# both cases, and letters beyond ASCII whose case SQLite doesn't know. One lower cases by its context.
PREFIXES = st.lists(st.text(alphabet="aAbB%_\\éÉΣ\u03c3", max_size=3), min_size=1, max_size=5)
PARTITIONS = ["", "a", "A", "ab", "aB", "Ab", "abé", "AbÉ", "ba", "BA", "%", "%a", "_", "__", "a%b", "a_b"]
PARTITIONS += [
    "\\",
    "a\\b",
    "é",
    "É",
    "bb",
    "BB",
    "bB",
    "aΣ",
    "aΣa",
    "AΣA",
    "a\u03c3",
    "A\u03c3a",
    "\u03c3",
    "Σ",
]


@pytest.fixture
def rows(db: None) -> None:
    Store.objects.bulk_create(
        factories.build_store_row("lesson", partition=partition) for partition in PARTITIONS
    )


def matches(partition: str, prefix: str) -> bool:
    """Whether the database finds it with the condition that Morango itself writes."""
    if connection.vendor == "sqlite":  # its LIKE takes upper and lower ASCII letters for the same
        partition, prefix = ascii_lower(partition), ascii_lower(prefix)
    return partition.startswith(prefix)


def ascii_lower(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prefixes=PREFIXES, order=st.sampled_from(["asc", "desc"]))
@example(prefixes=["a", "A", "aB", "Ab", "AB", "ab"], order="asc")
@example(prefixes=["a", "A", "aB", "Ab", "AB", "ab"], order="desc")
@example(prefixes=["AΣa", "aΣ"], order="asc")
@example(prefixes=["aΣ", "AΣA", "A\u03c3"], order="desc")
def test_each_row_matches_exactly_one_condition_of_the_filter_that_takes_it(
    rows: None, prefixes: list[str], order: PartitionOrder
) -> None:
    # Given the conditions for any filter, nested and overlapping prefixes included
    sync_filter = Filter("\n".join(prefixes))
    conditions = list(prefix_conditions("partition", sync_filter, order))

    # When each of them is asked for
    found = [
        partition
        for condition in conditions
        for partition in Store.objects.filter(condition).values_list("partition", flat=True)
    ]

    # Then together they find what the filter takes in, and nothing twice
    expected = [p for p in PARTITIONS if any(matches(p, prefix) for prefix in sync_filter)]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("order", "expected"), [("asc", ["a", "b", "c"]), ("desc", ["c", "b", "a"])])
def test_conditions_come_in_the_order_of_partitions(order: PartitionOrder, expected: list[str]) -> None:
    conditions = prefix_conditions("partition", Filter("b c a"), order)

    assert list(conditions) == [Q(partition__startswith=prefix) for prefix in expected]
