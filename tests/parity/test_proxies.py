"""Proxies of one table, foreign keys to the table itself, and dependencies that are only named."""

from __future__ import annotations

import pytest

from tests.model_zoo.models import Region, Town
from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import assert_same, assert_same_but_clean, both
from tests.support.comparison import existing

OTHER = "ab" * 16
INVALID = "django.core.exceptions.ValidationError"
MISSING_PARENT = (
    "Parent does not exist in Store; could not deserialize.",
    "morango.errors.MorangoMissingParent",
)
DIRTY_PARENT = ("Parent is dirty; could not deserialize.", "morango.errors.MorangoDirtyParent")


def test_tree_over_two_proxies_is_saved_parents_first() -> None:
    region = build_zoo_row("region")
    town = build_zoo_row("town", parent=region)
    quarter = build_zoo_row("town", parent=town)
    result = assert_same([quarter, town, region])
    assert {row["id"]: row["kind"] for row in result.app["site"]} == {
        region.id: "region",
        town.id: "town",
        quarter.id: "town",
    }


def test_trees_within_proxies_are_saved_parents_first() -> None:
    regions = [build_zoo_row("region")]
    towns = [build_zoo_row("town")]
    for _ in range(3):
        regions.append(build_zoo_row("region", parent=regions[-1]))
        towns.append(build_zoo_row("town", parent=towns[-1]))
    assert len(assert_same([*reversed(towns), *reversed(regions)]).app["site"]) == 8


def test_proxies_own_save_runs() -> None:
    assert assert_same([build_zoo_row("town", kind="region")]).app["site"][0]["kind"] == "town"


def test_rows_of_the_other_proxy_are_not_touched_by_a_deletion() -> None:
    """A proxy's manager shows only its own rows."""
    region = build_zoo_row("region")
    row = existing(region)
    gone = build_zoo_row("town", id=region.id, source_id=region.source_id, deleted=True)
    assert assert_same([gone], app=[row]).ids("site") == {region.id}


@pytest.mark.parametrize("model_name", ["region", "town"])
def test_deleted_record_of_a_proxy_loses_its_row(model_name: str) -> None:
    site, kept = build_zoo_row(model_name, deleted=True), build_zoo_row("region")
    result = assert_same([site, kept], app=[existing(site), existing(kept)])
    assert result.ids("site") == {kept.id}


def test_foreign_key_to_the_unregistered_model_finds_its_proxies() -> None:
    region = build_zoo_row("region")
    town = build_zoo_row("town", parent=region)
    people = [build_zoo_row("person", home=site) for site in (region, town)]
    assert len(assert_same([*people, town, region]).app["person"]) == 2


def test_missing_target_of_the_unregistered_model_is_named() -> None:
    person = build_zoo_row("person", home_id=OTHER)
    assert assert_same([person]).errors[person.id] == (
        f"Person.home_id references non-existent site instance with id '{OTHER}'",
        "django.db.utils.IntegrityError",
    )


@pytest.mark.parametrize("model_name", ["region", "town"])
@pytest.mark.parametrize("hard", [False, True])
def test_deletion_propagates_from_a_proxy(model_name: str, hard: bool) -> None:
    site = build_zoo_row(model_name, deleted=True, hard_deleted=hard)
    person = build_zoo_row("person", home=site)
    result = assert_same_but_clean([site, person], propagated=[person])
    assert (result.deleted, result.hard_deleted) == ({person.id}, {person.id} if hard else set())


@pytest.mark.parametrize("model_name", ["region", "town"])
def test_invalid_target_of_a_proxy_fails_the_record(model_name: str) -> None:
    site = build_zoo_row(model_name, name="")
    person = build_zoo_row("person", home=site)
    result = assert_same([site, person])
    assert set(result.errors) == {site.id, person.id}
    assert "name" in (result.errors[site.id][0] or "")
    assert result.errors[person.id] == (f"['site with id {site.id} failed to deserialize']", INVALID)


def test_named_dependency_comes_first_though_nothing_refers_to_it() -> None:
    """Town names Region: so a town may have any region as its parent, and none is missed."""
    regions = [build_zoo_row("region") for _ in range(4)]
    towns = [build_zoo_row("town", parent=region) for region in regions]
    assert len(assert_same([*towns, *regions]).app["site"]) == 8


def test_clean_parent_of_another_proxy_counts() -> None:
    region = build_zoo_row("region", dirty=False)
    town = build_zoo_row("town", parent=region)
    assert assert_same([town, region], app=[existing(region)]).ids("site") == {region.id, town.id}


def test_parent_of_a_later_proxy_is_treated_alike() -> None:
    """Against the order of the models: a region's parents are looked for among regions only."""
    town = build_zoo_row("town")
    region = build_zoo_row("region", parent=town)
    assert_same([town, region])


def test_dirty_parent_of_another_proxy_is_called_dirty_where_morango_calls_it_missing(
    trees_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Morango comes to a town twice: with the regions, where its parent is dirty, and then without them."""
    monkeypatch.setattr(Region, "morango_model_dependencies", (Town,))
    monkeypatch.setattr(Town, "morango_model_dependencies", ())
    region = build_zoo_row("region", name="")
    town = build_zoo_row("town", parent=region)
    theirs, ours = both([town, region])
    assert theirs.errors[town.id] == MISSING_PARENT
    assert ours.errors == {region.id: theirs.errors[region.id], town.id: DIRTY_PARENT}


# Person, which is no tree, names Region and Town. So Morango comes to their dirty records once more, without
# the rules of a tree. Here a tree's rules hold, no matter which model names it.


def test_invalid_parent_of_another_proxy_fails_its_children_where_morango_aborts() -> None:
    region = build_zoo_row("region", name="")
    town = build_zoo_row("town", parent=region)
    below = build_zoo_row("town", parent=town)
    theirs, ours = both([below, town, region])
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert ours.errors[region.id][1] == INVALID
    assert (ours.errors[town.id], ours.errors[below.id]) == (DIRTY_PARENT, DIRTY_PARENT)


def test_missing_parent_fails_its_children_where_morango_aborts() -> None:
    town = build_zoo_row("town", parent_id=OTHER)
    below = build_zoo_row("town", parent=town)
    theirs, ours = both([below, town])
    assert theirs.aborted == "django.db.utils.IntegrityError"
    assert ours.errors[town.id][1] == "morango.errors.MorangoMissingParent"
    assert ours.errors[below.id] == DIRTY_PARENT


@pytest.mark.parametrize("now", [True, False])
def test_deleted_parent_of_another_proxy_deletes_no_child_where_morango_does(now: bool) -> None:
    region = build_zoo_row("region", deleted=True, dirty=now)
    town = build_zoo_row("town", parent=region)
    theirs, ours = both([town, region])
    assert ours.errors == theirs.errors
    assert ours.errors[town.id][1] == INVALID
    assert (theirs.deleted, ours.deleted) == ({town.id}, set())


def test_cycle_in_the_stores_column_alone_is_an_error_where_morango_saves_both() -> None:
    region = build_zoo_row("region")
    town = build_zoo_row("town", parent=region)
    region._self_ref_fk = town.id
    theirs, ours = both([region, town])
    assert theirs.ids("site") == {region.id, town.id}
    assert ours.errors == dict.fromkeys((region.id, town.id), DIRTY_PARENT)
