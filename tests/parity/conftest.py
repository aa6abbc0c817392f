from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _inside_a_transaction(settings: Any, db: None) -> None:
    """Morango wants to set the isolation level itself, which an open transaction forbids."""
    settings.MORANGO_TEST_POSTGRESQL = True


@pytest.fixture(params=[1000, 1])
def batch_size(request: pytest.FixtureRequest, settings: Any) -> int:
    """Set the batch size, for a run that isn't the harness's, or with a result that depends on it."""
    from tests.support.comparison import in_batches_of

    size: int = request.param
    settings.MORANGO_CELERY = in_batches_of(size)
    return size


@pytest.fixture
def trees_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out Morango's treatment of models that name tree models as their dependency.

    See trees-in-other-passes in docs/fidelity.md; too much differs to be put right one by one.
    """
    from tests.model_zoo.models import Person

    monkeypatch.setattr(Person, "morango_model_dependencies", ())
