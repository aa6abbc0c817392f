"""Values that a model's own code leaves in a field: the driver gets them as from Django."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import connection
from morango.models import SyncableModel

from morango_celery.deserialization.traits import traits_of
from morango_celery.deserialization.values import database_values
from tests.unit.rows import with_type
from worker.school.models import Attempt, Learner

KEY = "ab" * 16


@pytest.mark.parametrize(
    ("model", "column", "value"),
    [
        (Learner, "full_name", "Ada"),
        (Learner, "full_name", 5),
        (Learner, "birth_year", 1990),
        (Learner, "birth_year", "1990"),
        (Learner, "birth_year", True),
        (Learner, "birth_year", None),
        (Learner, "school_id", KEY),
        (Learner, "school_id", KEY.upper()),
        (Learner, "unit_id", uuid.UUID(KEY)),
        (Learner, "unit_id", str(uuid.UUID(KEY))),
        (Learner, "_morango_dirty_bit", "True"),
        (Attempt, "score", 1),
        (Attempt, "score", "0.5"),
        (Attempt, "kind", Attempt.Kind.QUIZ),
        (Attempt, "answer", 5),
    ],
)
def test_attribute_of_any_type_is_saved_as_django_saves_it(
    model: type[SyncableModel], column: str, value: Any
) -> None:
    app_model = model(**{column: value})
    field = next(field for field in traits_of(model).fields if field.attname == column)
    expected = field.get_db_prep_save(value, connection)

    (made,) = database_values(app_model, [field])

    assert with_type(made) == with_type(expected)
