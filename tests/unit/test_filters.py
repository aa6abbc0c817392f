"""Sync filters: nonsense is refused, and each row is found once, for any prefixes and any number of them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from django.db import connection
from django.db.models import Q
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.errors import InvalidFilterError
from morango_celery.reading import prefixes
from morango_celery.reading.filters import PartitionOrder, parse_filter, partition_order, under_filter
from morango_celery.reading.prefixes import outermost
from tests.support import factories


def test_no_filter_stands_for_the_whole_profile() -> None:
    assert parse_filter(None) is None


@pytest.mark.parametrize("given_filter", [Filter("a b"), Filter("")])
def test_filter_of_morangos_is_taken_as_it_is(given_filter: Filter) -> None:
    assert parse_filter(given_filter) is given_filter


@pytest.mark.parametrize(
    "value",
    ["5c:units\n5c:learner", ["5c:units", "5c:learner"], ("5c:units", "5c:learner")],
)
def test_texts_become_a_filter(value: Any) -> None:
    assert list(parse_filter(value) or ()) == ["5c:units", "5c:learner"]


def test_generator_of_prefixes_becomes_a_filter() -> None:
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
def test_malformed_filter_is_refused_with_its_reason(value: Any, problem: str) -> None:
    with pytest.raises(InvalidFilterError) as refused:
        parse_filter(value)

    assert str(refused.value).startswith(problem)


def test_no_filter_covers_every_row() -> None:
    assert under_filter("partition", None) == Q()


def test_prefixes_within_others_are_left_out() -> None:
    assert outermost(Filter("5c:learner 5c 5c:units 5c 5b")) == ["5b", "5c"]
    assert outermost(Filter("a ab abc b")) == ["a", "b"]
    assert outermost(Filter("")) == [""]


def test_few_prefixes_are_compared_as_morango_compares_them() -> None:
    conditions = [Q(partition__startswith=prefix) for prefix in ("5c:learner", "5d")]
    assert under_filter("partition", Filter("5d 5c:learner")) == conditions[0] | conditions[1]


# Few characters, so that prefixes nest and overlap; with both wildcards of LIKE and its escape,
# both cases, and letters beyond ASCII of a case unknown to SQLite. One lower cases by its context.
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
    """Return True if the database finds it with the condition that Morango itself writes."""
    if connection.vendor == "sqlite":  # its LIKE takes upper and lower ASCII letters for the same
        partition, prefix = ascii_lower(partition), ascii_lower(prefix)
    return partition.startswith(prefix)


def ascii_lower(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def first_prefix(partition: str, prefixes: list[str]) -> int | None:
    """Return the place of the prefix that takes the partition."""
    return next((place for place, prefix in enumerate(prefixes) if matches(partition, prefix)), None)


WAYS = pytest.mark.parametrize("few", [0, 1, prefixes.FEW], ids=["looked up", "covered", "compared"])


@WAYS
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=PREFIXES, order=st.sampled_from(["asc", "desc"]))
@example(chosen=["a", "A", "aB", "Ab", "AB", "ab"], order="asc")
@example(chosen=["a", "A", "aB", "Ab", "AB", "ab"], order="desc")
@example(chosen=["AΣa", "aΣ"], order="asc")
@example(chosen=["aΣ", "AΣA", "A\u03c3"], order="desc")
@example(chosen=["B", "a"], order="asc")
@example(chosen=["b", 'a"b', "é"], order="desc")
def test_filter_finds_each_of_its_rows_once_and_prefix_by_prefix(
    rows: None, few: int, chosen: list[str], order: PartitionOrder
) -> None:
    # Given any filter, with nested and overlapping prefixes
    sync_filter = Filter("\n".join(chosen))

    # When its rows are asked for, in whichever way prefixes are compared
    with patch.object(prefixes, "FEW", few):
        condition = under_filter("partition", sync_filter)
        ordering = partition_order("partition", sync_filter, order)
        found = list(Store.objects.filter(condition).order_by(*ordering).values_list("partition", flat=True))

    # Then they are all that Morango's own condition finds, in the order of the prefixes that take them
    taken_by = outermost(sync_filter)[:: 1 if order == "asc" else -1]
    by_partition = sorted(PARTITIONS, reverse=order == "desc")
    places = [(first_prefix(partition, taken_by), partition) for partition in by_partition]
    expected = [(place, partition) for place, partition in places if place is not None]
    assert found == [partition for _, partition in sorted(expected, key=lambda taken: taken[0])]


@pytest.mark.parametrize("number", [2, prefixes.FEW, prefixes.FEW + 1, 1_000, 10_000])
def test_filter_may_have_any_number_of_prefixes(rows: None, number: int) -> None:
    many = [f"{n % 3 * 'x'}{n:05}:" for n in range(number - 1)]
    sync_filter = Filter("\n".join([*many, "a%"]))

    found = Store.objects.filter(under_filter("partition", sync_filter))

    assert list(found.values_list("partition", flat=True)) == ["a%b"]


def test_prefixes_may_have_any_number_of_lengths(rows: None) -> None:
    sync_filter = Filter("\n".join(["ab", *(f"{'x' * n}y" for n in range(2_000))]))

    found = Store.objects.filter(under_filter("partition", sync_filter))

    assert found.filter(partition="ab").count() == 1
    assert found.count() == sum(matches(partition, "ab") for partition in PARTITIONS)
