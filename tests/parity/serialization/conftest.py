from __future__ import annotations

import pytest


@pytest.fixture
def batch_size() -> None:
    """There are no batches here to be of three sizes."""
