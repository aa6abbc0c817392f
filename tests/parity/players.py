"""Records of players and their ensembles: those of a section require others of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.test.utils import override_settings
from morango.models import Store

from morango_celery import deserialize_from_store
from tests.model_zoo.rows import build_zoo_row
from tests.support.comparison import BATCH_SIZES, Database, difference, existing, run

WHOLE = build_zoo_row("ensemble", dirty=False)
OTHER_WHOLE = build_zoo_row("ensemble", dirty=False)
SECTION = build_zoo_row("ensemble", kind="section", whole_id=WHOLE.id, dirty=False)
PART = build_zoo_row("ensemble", kind="section", whole_id=SECTION.id, dirty=False)
AUDIENCE = build_zoo_row("ensemble", kind="audience", dirty=False)
STORED = [WHOLE, OTHER_WHOLE, SECTION, PART, AUDIENCE]
ADA, BOB = "ad" * 16, "b0" * 16


def player(ensemble: Store, person_id: str = ADA, **fields: Any) -> Store:
    return build_zoo_row("player", ensemble=ensemble, person_id=person_id, **fields)


def there() -> list[Any]:
    """Return the app rows of the ensembles."""
    return [existing(row) for row in STORED]


def same_as_by_code(
    players: list[Store], app: Sequence[Any] = (), batch_sizes: Sequence[int] = BATCH_SIZES
) -> Database:
    """Return the database that we leave behind, and require it to be that of the model's own code."""
    rows, app = [*STORED, *players], [*there(), *app]
    result = run(deserialize_from_store, rows, app=app, batch_sizes=batch_sizes)
    with override_settings(MORANGO_CELERY={**settings.MORANGO_CELERY, "USE_EQUIVALENTS": False}):
        by_code = run(deserialize_from_store, rows, app=app, batch_sizes=batch_sizes)
    assert result == by_code, difference(by_code, result)
    return result
