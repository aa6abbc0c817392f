"""Ids of records. A record writes the row of its own id, even if its JSON names another.

On a push, Morango checks the ids of Store rows against the filter, and nothing in their JSON. So a JSON that
names another id would let a device with access to one facility overwrite rows of another.
"""

from __future__ import annotations

from contextlib import suppress
from reprlib import Repr
from typing import Any

from django.core.validators import EMPTY_VALUES
from django.db import connection
from django.db.models import Field
from morango.models.core import Store, SyncableModel

from morango_celery.deserialization.traits import once_per_model, traits_of
from morango_celery.errors import MismatchedIdError

_SHORTENED = Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 60


@once_per_model
def _key_fields(model: type[SyncableModel]) -> tuple[Field[Any, Any], ...]:
    """Return the fields that say which rows an instance is: keys of its tables, and links between these."""
    return tuple(
        field
        for field in traits_of(model).fields
        if field.primary_key or (field.remote_field and getattr(field.remote_field, "parent_link", False))
    )


def take_own_id(app_model: SyncableModel, store: Store) -> None:
    """Give the record's own id to an instance that was made of its JSON, if that names none.

    :raises MismatchedIdError: it names another
    """
    if app_model.id in EMPTY_VALUES:
        app_model.id = store.id
    require_own_id(app_model, store)


def require_own_id(app_model: SyncableModel, store: Store) -> None:
    """Refuse an instance that would be saved as another row than its record's.

    :raises MismatchedIdError: another id, in any form
    """
    for field in _key_fields(type(app_model)):
        value = getattr(app_model, field.attname)
        if value == store.id:
            continue
        key = None
        with suppress(Exception):  # a value that is no id at all is refused as it is validated, or written
            key = field.get_db_prep_save(value, connection)
        if key is not None and key != store.id:
            raise MismatchedIdError(
                f"Its JSON says {field.attname} = {_SHORTENED.repr(value)}, but the record is {store.id}."
                " A record writes no row but its own."
            )
