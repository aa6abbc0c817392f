"""Deletions that another row forbids: Morango gives up, here they are tried again or in error."""

from __future__ import annotations

from tests.model_zoo.rows import build_zoo_row
from tests.parity.harness import both
from tests.support.comparison import existing

PROTECTED = "django.db.models.deletion.ProtectedError"


def test_row_is_protected_from_a_cascade_too() -> None:
    club = build_zoo_row("club", deleted=True)
    member = build_zoo_row("member", club=club, dirty=False)
    letter = build_zoo_row("letter", sender=member, dirty=False)
    theirs, ours = both([club, member, letter], app=[existing(row) for row in (club, member, letter)])
    assert theirs.aborted == PROTECTED
    assert (list(ours.errors), ours.ids("club"), ours.ids("letter")) == ([club.id], {club.id}, {letter.id})


def test_protected_row_is_deleted_once_its_referrer_is() -> None:
    """Members come before letters: Morango fails, and we try again once the letter is gone."""
    club = build_zoo_row("club", dirty=False)
    member = build_zoo_row("member", club=club, deleted=True)
    letter = build_zoo_row("letter", sender=member, deleted=True)
    app = [existing(row) for row in (club, member, letter)]
    theirs, ours = both([club, member, letter], app=app)
    assert theirs.aborted == PROTECTED
    assert (ours.errors, ours.app["member"], ours.app["letter"]) == ({}, [], [])


def test_protected_row_is_deleted_once_its_referrer_leaves() -> None:
    club = build_zoo_row("club", dirty=False)
    member = build_zoo_row("member", club=club, deleted=True)
    letter = build_zoo_row("letter", sender_id=None)
    app = [existing(row) for row in (club, member)] + [existing(letter, sender_id=member.id)]
    theirs, ours = both([club, member, letter], app=app)
    assert theirs.aborted == PROTECTED
    assert (ours.errors, ours.app["member"], ours.ids("letter")) == ({}, [], {letter.id})
