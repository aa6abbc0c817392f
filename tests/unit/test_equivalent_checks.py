"""System checks of declared equivalents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import override_settings

from morango_celery.checks import equivalents as checks
from morango_celery.deserialization.equivalent import mismatch
from morango_celery.equivalents import declare, declared
from tests.model_zoo.models import Track


def test_equivalent_that_matches_is_no_finding() -> None:
    assert checks.check_declared_equivalents() == []


def test_equivalent_of_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    was: Any = declared(Track)
    declare(Track, replace(was, sha256="0" * 64))
    monkeypatch.setattr(checks, "mismatch", mismatch.__wrapped__)  # type: ignore[attr-defined]  # not the kept one
    try:
        (found,) = checks.check_declared_equivalents()
    finally:
        declare(Track, was)
    assert found.id == "morango_celery.W012"
    assert found.msg.startswith("The equivalent that is declared for model_zoo.Track isn't used: ")
    assert "another version" in found.msg


def test_models_with_code_that_runs_for_each_record_are_listed_with_the_reason() -> None:
    (found,) = checks.check_models_without_equivalent()
    assert found.id == "morango_celery.I003"
    assert "model_zoo.Step (no equivalent); " in found.msg
    assert "model_zoo.Track" not in found.msg
    assert "model_zoo.Album" not in found.msg


def test_nothing_is_listed_where_equivalents_are_not_used() -> None:
    with override_settings(MORANGO_CELERY={"USE_EQUIVALENTS": False}):
        assert checks.check_models_without_equivalent() == []
