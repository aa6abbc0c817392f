"""A log for each test, and a project that records its changes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of a log, which isn't there yet, in a folder of its own."""
    folder = tmp_path / "log"
    folder.mkdir()
    return folder / "changes.log"


@pytest.fixture
def recorded(log: Path, settings: Any) -> Iterator[Path]:
    """Record changes of the library during the test, and yield the path of the log."""
    from django.apps import apps
    from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

    from morango_celery.oplog import recorder

    signals = (post_save, pre_delete, post_delete, m2m_changed)
    before = [list(signal.receivers) for signal in signals]
    labels = [model._meta.label for model in apps.get_app_config("library").get_models()]
    chosen = [label for label in labels if label not in ("library.Local", "library.OldBook")]
    settings.MORANGO_CELERY_OPLOG = {
        **settings.MORANGO_CELERY_OPLOG,
        "FILE": str(log),
        "MODELS": chosen,
    }
    recorder.connect()
    yield log
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()
