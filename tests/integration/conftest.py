"""Fixtures for tests that carry runs out in this process, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def serializable_in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True  # Morango sets no isolation level then


@pytest.fixture
def batch_size(settings: Any) -> Callable[[int], None]:
    def change(size: int) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": size}

    return change
