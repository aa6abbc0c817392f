"""Change of each piece of Kolibri's code that an equivalent stands for: the code itself has to run then.

``python -m tests.kolibri.other_versions`` in Kolibri's environment; exit status 1 if a change isn't noticed.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import django


def another(*args: Any, **kwargs: Any) -> None:
    """Stand for the code of another version."""
    raise AssertionError("It is looked at, and not called.")


def main() -> int:
    django.setup()
    from kolibri.core.auth.models import Membership

    from morango_celery.contrib.kolibri.equivalents import IN_ONE_DATASET, INFERRED_BY
    from morango_celery.deserialization.equivalent import field_mismatch, mismatch
    from morango_celery.deserialization.rows import row_plan
    from morango_celery.equivalents import declared, declared_fields, declared_for_field

    models = [*INFERRED_BY, *IN_ONE_DATASET, Membership]
    unnoticed = [f"{model.__name__} as it is" for model in models if row_plan(model) is None]
    changes = 0
    look: Any = mismatch
    for model in models:
        equivalent = declared(model)
        assert equivalent is not None
        for name in (*equivalent.overrides, *equivalent.calls):
            changes += 1
            with changed(model, name):
                if "another version" not in str(look.__wrapped__(model)):  # what it found before is kept
                    unnoticed.append(f"{model.__name__}: {name}")
    for field in declared_fields():
        of_field = declared_for_field(field)
        assert of_field is not None
        for name in of_field.calls:
            changes += 1
            with (
                changed(field, name),
                mock.patch.dict("morango_celery.deserialization.equivalent._field_mismatches", clear=True),
            ):
                if "another version" not in str(field_mismatch(field)):
                    unnoticed.append(f"{field.__name__}: {name}")
    print(
        f"{changes} changes of Kolibri's code, {len(unnoticed)} unnoticed: {', '.join(unnoticed) or 'none'}"
    )
    return 1 if unnoticed else 0


def changed(owner: type[Any], name: str) -> Any:
    """Return a context in which a method, or what a dotted path names, is another one."""
    return mock.patch(name, another) if "." in name else mock.patch.object(owner, name, another)


if __name__ == "__main__":
    sys.exit(main())
