"""Valid references of a tree's records, each judged by its own foreign key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from django.db.models import ForeignKey
from morango.models.certificates import Filter
from morango.models.core import SyncableModel

from morango_celery.deserialization.traits import target_model, traits_of

AnyKey: TypeAlias = "ForeignKey[Any, Any]"


class ValidReferences:
    """References of one group's records that need no query any more.

    Morango has one cache for all records, by value and table. So a value that is right for one foreign key,
    as null where it is allowed, passes for all others to that table from the next record on. Here each key
    is judged alone.
    """

    def __init__(self) -> None:
        self._validated: set[tuple[AnyKey, str]] = set()
        """References that Django has validated, because the row's existence alone didn't decide."""
        self._to_be_written: set[tuple[str, str]] = set()
        """Table and id of valid records: their children refer to them before they are there."""

    def clean(
        self,
        app_model: SyncableModel,
        row_exists: Callable[[AnyKey, Any], bool],
        sync_filter: Filter | None,
    ) -> None:
        """Call Morango's ``cached_clean_fields`` with the references of the record that are known to be
        valid.

        :param row_exists: tells whether a foreign key's target with some value was found
        :raises Exception: anything that the model raises
        """
        references: dict[str, list[tuple[AnyKey, Any]]] = {}
        for field in traits_of(type(app_model)).foreign_keys:
            value = getattr(app_model, field.attname)
            references.setdefault(f"{value}_{_table(field)}", []).append((field, value))
        known = {
            name: 1
            for name, same in references.items()
            if all(self._is_known(field, value, row_exists) for field, value in same)
        }
        try:
            app_model.cached_clean_fields(known, sync_filter=sync_filter)
        finally:
            for name, same in references.items():
                ((field, value), *others) = same
                if name in known and not others and type(value) is str:
                    self._validated.add((field, value))
        self._to_be_written.add((app_model._meta.db_table, app_model.id))

    def _is_known(self, field: AnyKey, value: Any, row_exists: Callable[[AnyKey, Any], bool]) -> bool:
        if type(value) is not str:
            return False
        if (field, value) in self._validated:
            return True
        if field.target_field.primary_key and (_table(field), value) in self._to_be_written:
            return True
        return row_exists(field, value) and not field.get_limit_choices_to()


def _table(field: AnyKey) -> str:
    return target_model(field)._meta.db_table
