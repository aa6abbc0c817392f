"""Expectation for a case: Morango's own result, corrected where ``docs/fidelity.md`` says so.

Morango is run again and again to find the records that need a stand-in for that.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping

from django.db import connection
from morango.models import Store
from morango.sync.operations import _deserialize_from_store as morangos

from tests.parity.case import Case, synced_targets
from tests.parity.corrections import DIRTY_PARENT, MISSING_PARENT, OF_OUR_OWN, correct, mended
from tests.parity.stand_ins import (
    Broken,
    Finding,
    Gone,
    InErrorByChance,
    StandIn,
    first_causes,
    misjudged,
    prepared,
)
from tests.support.comparison import Database, read, rolled_back

MOST_ROUNDS = 30


def expected(case: Case, ours: Database | None = None) -> Database:
    """Return the database that our engine has to leave behind, with any batches.

    :param ours: the database that it did leave behind, for what is left to chance
    """
    by_chance = dict(_left_to_chance(case, ours)) if ours is not None and case.skip_erroring else {}
    stand_ins = {store_id: Broken(OF_OUR_OWN, path) for store_id, path in case.differing.items()} | by_chance
    result = Database()
    for _ in range(MOST_ROUNDS):
        with rolled_back():
            case.set_up(prepared(case, stand_ins))
            _run_until_stable(case)
            findings = (each for each in misjudged(case) if each[0] not in by_chance)
            found = first_causes([each for each in findings if _is_news(each, stand_ins)])
            if not found:
                correct(case, stand_ins)
                connection.check_constraints()
                read(result, case.profile)
                return result
        stand_ins |= found
    raise AssertionError(f"No end of stand-ins: {stand_ins}")


def _left_to_chance(case: Case, ours: Database) -> Iterator[tuple[str, StandIn]]:
    """Yield our own fate for each record with a target that failed in this run and another that is deleted.

    With `skip_erroring` only a batch knows of its own failures, so either target may be all that is seen.
    """
    taken = {row.id for row in case.rows if case.takes(row)}
    failed = taken & ours.errors.keys()
    gone = {row.id for row in case.rows if row.deleted} | ours.deleted
    saved = _saved(ours)
    for row in case.rows:
        text, path = ours.errors.get(row.id, (None, None))
        is_noted, is_hard = row.id in ours.deleted, row.id in ours.hard_deleted
        if row.id not in taken or row.deleted or not (_is_about_a_target(text) if text else is_noted):
            continue
        targets = synced_targets(row)
        if failed.isdisjoint(targets) or gone.isdisjoint(targets):
            continue
        if text and path:
            yield row.id, InErrorByChance(text, path, is_noted, is_hard)
        elif row.id not in saved:
            yield row.id, Gone(is_hard)


def _is_news(finding: Finding, stand_ins: Mapping[str, StandIn]) -> bool:
    """Return True if a record has no stand-in yet, or if one that is to be deleted turns out to be in
    error."""
    store_id, stand_in, _ = finding
    before = stand_ins.get(store_id)
    return before is None or (isinstance(before, Gone) and type(stand_in) is Broken)


def _run_until_stable(case: Case) -> None:
    """row-order: further runs save the records that a bad order made fail in the first."""
    before: object = None
    while True:
        with mended():
            morangos(case.profile, skip_erroring=case.skip_erroring, filter=case.filter)
        after = list(Store.objects.order_by("id").values_list("dirty_bit", "deserialization_error"))
        if after == before:
            return
        before = after
        if case.skip_erroring:  # it must not skip records that have failed only now
            tried = [row.id for row in case.rows if case.takes(row)]
            Store.objects.filter(id__in=tried).update(deserialization_error=None)


def in_our_words(expectation: Database, ours: Database, case: Case) -> Database:
    """Return the expectation with our wording where that is up to us.

    Of a record in error with both we may say that its target failed, if that is so (failed-targets):
    Morango doesn't look, and so comes to some other error, its own or one that follows.
    """
    rows = {row.id: row for row in case.rows}
    result = copy.deepcopy(expectation)
    for store_id, (text, path) in ours.errors.items():
        theirs = expectation.errors.get(store_id)
        if theirs is None:
            continue
        named = re.fullmatch(r"\['.+ with id (\w+) failed to deserialize'\]", text or "")
        # Left to chance: which of several missing targets is named
        names_another = all(_names_an_absent_target(each, store_id, rows) for each in (text, theirs[0]))
        ours_to_say = theirs[0] == OF_OUR_OWN and text and path == theirs[1]
        names_failure = named and named[1] in rows[store_id].serialized and named[1] not in _saved(ours)
        left_to_chance = case.skip_erroring and (
            {path, theirs[1]} == {DIRTY_PARENT[1], MISSING_PARENT}
            or (
                _missing(text)
                and _is_about_a_target(theirs[0])
                and _has_failed_target(rows[store_id], expectation)
            )
        )
        if ours_to_say or names_failure or names_another or left_to_chance:
            result.errors[store_id] = (text, path)
            values = result.serialized[store_id]
            values["deserialization_error"], values["deserialization_exception"] = text, path
    return result


def _has_failed_target(row: Store, expectation: Database) -> bool:
    return any(target in expectation.errors for target in synced_targets(row))


def _is_about_a_target(text: str | None) -> bool:
    return _missing(text) is not None or (text or "").endswith(" failed to deserialize']")


def _names_an_absent_target(text: str | None, store_id: str, rows: Mapping[str, Store]) -> bool:
    target = _missing(text)
    return target is not None and target in synced_targets(rows[store_id]) and target not in rows


def _missing(text: str | None) -> str | None:
    """Return the id of the absent instance, of an error that says so."""
    named = re.fullmatch(r"\w+\.\w+ references non-existent \w+ instance with id '(\w+)'", text or "")
    return named[1] if named else None


def _saved(database: Database) -> set[str]:
    """Return the ids of app rows with a record that is not in error."""
    ids = {row["id"] for rows in database.app.values() for row in rows}
    return ids - database.errors.keys()
