"""Locks: every installed file is locked by its hash, and the image has the tested versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.supply_chain import locks
from tests.supply_chain.locks import PROJECT, LockError

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize("lock", locks.LOCKS, ids=["everything", "image", "kolibri"])
def test_every_requirement_is_pinned_and_has_hashes(lock: Path) -> None:
    pins = locks.read(lock)

    assert {"celery", "django", "morango"} <= {pin.name for pin in pins}
    # ... and nothing of the lock was overlooked
    lines = [line for line in lock.read_text().splitlines() if line[:1].strip() and not line.startswith("#")]
    assert len(pins) == len(lines)
    assert sum(len(pin.hashes) for pin in pins) == lock.read_text().count("--hash=")


def test_image_has_the_tested_versions_and_no_other_file() -> None:
    tested = {(pin.name, pin.version): pin.hashes for pin in locks.read(locks.EVERYTHING)}
    image = {(pin.name, pin.version): pin.hashes for pin in locks.read(locks.IMAGE)}

    assert {"gunicorn", "flower", "celery", "morango"} <= {name for name, _ in image}
    assert image.items() <= tested.items()


@pytest.mark.parametrize("lock", [locks.EVERYTHING, locks.IMAGE], ids=["everything", "image"])
def test_every_pin_is_needed_by_another_one_or_by_the_project(lock: Path) -> None:
    pins = locks.read(lock)

    assert [pin for pin in pins if not pin.needed_by] == []
    assert PROJECT in {origin for pin in pins for origin in pin.needed_by}
    assert {origin for pin in pins for origin in pin.needed_by} <= {PROJECT, *(pin.name for pin in pins)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("django==3.2.25", "has no hash of django"),
        (f"django==3.2.25 \\\n    {HASH}\nmorango==1 \\\n    # via", "has no hash of morango"),
        (f"django>=3.2 \\\n    {HASH}", "doesn't pin django"),
        (f"django==3.2.* \\\n    {HASH}", "doesn't pin django"),
        (f"django==3.2,<4 \\\n    {HASH}", "doesn't pin django"),
        ("--index-url somewhere", "no requirement"),
    ],
)
def test_a_lock_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(text)

    with pytest.raises(LockError, match=message):
        locks.read(lock)
