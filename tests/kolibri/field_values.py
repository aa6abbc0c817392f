"""Values of Kolibri's own fields, near those that it writes: the fast path makes what the field itself makes.

``python -m tests.kolibri.field_values`` in Kolibri's environment; exit status 1 if a value differs.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import django

VALUES = 5_000
"""Values of each field. About one in seven moments, and half of the documents, take the fast path."""
ZONES = (
    *("UTC", "Europe/Berlin", "Africa/Nairobi", "Africa/Monrovia", "Asia/Kolkata", "Etc/GMT+3", "EST5EDT"),
    *("utc", "europe/berlin", "Nowhere", "", "UTC)", "(UTC"),
)
LEAVES = (
    1,
    0,
    -0.0,
    1e300,
    10**30,
    "x",
    "é",
    "\ud800",
    "",
    None,
    True,
    "2026-01-01T00:00:00Z",
    "123",
    "null",
)
NO_OBJECTS: tuple[object, ...] = (
    *(None, 5, {}, [], "", "{", "nope", "NaN", "[1e999]", '{"a":1,"a":2}', " {} ", "[" * 3000),
    *("null", '"null"', '"5"', "true", "0"),
)


def moment(chance: random.Random) -> str | None:
    """Return a moment as Kolibri stores it, or nearly so; some have days or minutes that don't exist."""
    year = chance.choice([chance.randint(1, 9999), chance.randint(1900, 2100), 9999, 9998, 1000, 1883])
    day = f"{year:04d}-{chance.randint(1, 12):02d}-{chance.randint(1, 31):02d}"
    time = ":".join(f"{chance.randint(0, most):02d}" for most in (24, 60, 60))
    fraction = chance.choice([f"{chance.randint(0, 999_999):06d}", "000000", "0", "123", "1234567"])
    text = f"{day}{chance.choice('      T')}{time}.{fraction}({chance.choice(ZONES)})"
    return chance.choice([text] * 20 + [f"{text} ", None])


def document(chance: random.Random) -> object:
    """Return JSON in any of its forms, or something else."""
    if chance.random() < 0.05:
        return chance.choice(NO_OBJECTS)
    separators = chance.choice([(",", ":"), (", ", ": ")])
    return json.dumps(_content(chance, 3), ensure_ascii=chance.random() < 0.5, separators=separators)


def _content(chance: random.Random, depth: int) -> Any:
    kind = chance.randint(0, 9)
    if depth and kind == 0:
        return {chance.choice("abcé"): _content(chance, depth - 1) for _ in range(chance.randint(0, 3))}
    if depth and kind == 1:
        return [_content(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(LEAVES)


def main() -> int:
    django.setup()
    from django.db import connection
    from kolibri.core.logger.models import AttemptLog, ContentSummaryLog, MasteryLog

    from morango_celery.deserialization.conversions import conversion
    from morango_celery.equivalents import NotFastPath

    def by_itself(field: Any, value: Any) -> Any:
        """Return the value for the driver as Morango and Django make it."""
        found = field.to_python(value)
        if not (field.blank and found in field.empty_values):
            found = field.clean(found, None)
        return field.get_db_prep_save(found, connection)

    tried: dict[tuple[Any, str], Callable[[random.Random], Any]] = {
        (AttemptLog, "start_timestamp"): moment,
        (AttemptLog, "completion_timestamp"): moment,
        (AttemptLog, "answer"): document,
        (AttemptLog, "interaction_history"): document,
        (MasteryLog, "mastery_criterion"): document,
        (ContentSummaryLog, "extra_fields"): document,
    }
    differing = []
    for (model, name), make in tried.items():
        chance = random.Random(name)
        field = model._meta.get_field(name)
        convert = conversion(field)
        assert convert is not None
        fast = 0
        for value in (make(chance) for _ in range(VALUES)):
            try:
                (made,) = convert([value])
            except NotFastPath:
                continue
            fast += 1
            try:
                expected = by_itself(field, value)
            except Exception as error:  # the field refuses what the fast path took
                expected = error
            if (type(made), made) != (type(expected), expected):
                differing.append(f"{name} {value!r}: {made!r} instead of {expected!r}")
        print(f"{model.__name__}.{name}: {fast} of {VALUES} values took the fast path")
        if not fast:
            differing.append(f"{name}: nothing took the fast path")
    print("\n".join(differing))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
