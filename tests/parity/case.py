"""One database with one call of the function, and questions about such databases that are asked again and
again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from django.db.models import CASCADE, Field, ForeignKey, Model
from morango.models import DeletedModels, Store, SyncableModel
from morango.models.certificates import Filter
from morango.registry import syncable_models
from morango.sync.operations import _self_referential_fk

from tests.support.comparison import save_all


@dataclass(frozen=True)
class Case:
    """Database, and the call to deserialize it."""

    rows: Sequence[Store]
    app: Sequence[SyncableModel]
    noted: Sequence[str] = ()
    """Ids in DeletedModels: deleted with their target by an earlier run, not serialized since."""
    differing: Mapping[str, str] = field(default_factory=dict)
    """Records on which Morango gives up, or which it writes to others' rows, and the exception path that we
    record instead."""
    filter: Filter | None = None
    skip_erroring: bool = False

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the case as an example of Hypothesis's."""
        lines = [f"filter={self.filter and str(self.filter)!r}, skip_erroring={self.skip_erroring}"]
        for row in self.rows:
            flags = ("dirty_bit", "deleted", "hard_deleted", "deserialization_error", "_self_ref_fk")
            marks = [name for name in flags if getattr(row, name)]
            marks += ["noted"] if row.id in self.noted else []
            lines.append(f"{row.model_name} {row.id} {' '.join(marks)} in {row.partition}: {row.serialized}")
        for instance in self.app:
            dirty = "edited" if instance._morango_dirty_bit else "clean"
            lines.append(f"{dirty} app row of {type(instance).__name__}: {instance.serialize()}")
        printer.text("\n  ".join(["Case", *lines]))

    @property
    def profile(self) -> str:
        return str(self.rows[0].profile)

    def takes(self, row: Store) -> bool:
        """Return True if the call is about this record."""
        return (
            row.dirty_bit
            and (self.filter is None or row.partition in self.filter)
            and not (self.skip_erroring and bool(row.deserialization_error))
        )

    def set_up(self, rows: Iterable[Store]) -> None:
        """Save `rows` (the case's own, or their stand-ins) and the app rows."""
        save_all(rows, copy.deepcopy(self.app))
        DeletedModels.objects.bulk_create(DeletedModels(id=i, profile=self.profile) for i in self.noted)


def is_elsewhere(parent_id: str, case: Case) -> bool:
    """Return True if a tree parent isn't among the records that Morango looks at, and has an app row."""
    inside = [row.id for row in case.rows if case.filter is None or row.partition in case.filter]
    return parent_id not in inside and parent_id in {instance.pk for instance in case.app}


def model_of(row: Store) -> type[SyncableModel] | None:
    try:
        model: type[SyncableModel] = syncable_models.get_model(row.profile, row.model_name)
    except KeyError:
        return None
    return model


def table_of(row: Store) -> str:
    model = model_of(row)
    assert model is not None
    return str(model._meta.concrete_model._meta.db_table)


def app_rows_of(profile: str) -> dict[str, dict[str, SyncableModel]]:
    """App rows by table and id."""
    tables = {model._meta.concrete_model for model in syncable_models.get_models(profile)}
    return {model._meta.db_table: {row.pk: row for row in model._base_manager.all()} for model in tables}


def references(instance: SyncableModel) -> Iterator[tuple[ForeignKey[Any, Any], str]]:
    """Return the targets of an app row's foreign keys, but for its tree parent: Morango looks after that."""
    tree = _self_referential_fk(type(instance))
    for foreign_key in instance._meta.concrete_fields:
        if not isinstance(foreign_key, ForeignKey) or foreign_key.remote_field.parent_link:
            continue
        value = getattr(instance, foreign_key.attname)
        if value is not None and foreign_key.attname != tree:
            yield foreign_key, value


def synced_references(row: Store) -> list[tuple[ForeignKey[Any, Any], str]]:
    """Return the record's own references, in the order of its model's foreign keys."""
    model = model_of(row)
    assert model is not None
    synced = json.loads(row.serialized)
    keys = [f for f in model._meta.concrete_fields if isinstance(f, ForeignKey)]
    return [(key, synced[key.attname]) for key in keys if synced.get(key.attname)]


def synced_targets(row: Store) -> list[str]:
    """Return the ids of `synced_references`."""
    return [target for _, target in synced_references(row)]


def exists(rows: Mapping[str, Mapping[str, Any]], foreign_key: ForeignKey[Any, Any], target: str) -> bool:
    return target in rows[target_of(foreign_key)._meta.db_table]


def target_of(foreign_key: ForeignKey[Any, Any]) -> type[Model]:
    return cast(type[Model], foreign_key.related_model)


def is_deleted_by_cascade(instance: SyncableModel, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return True if an app row had to go because another one did."""
    return any(
        foreign_key.remote_field.on_delete is CASCADE and not exists(rows, foreign_key, target)
        for foreign_key, target in references(instance)
    )


def values_of(instance: SyncableModel) -> list[Any]:
    uncompared = {"_morango_dirty_bit", *clocks_of(type(instance))}
    fields: Iterable[Field[Any, Any]] = instance._meta.concrete_fields
    return [getattr(instance, f.attname) for f in fields if f.attname not in uncompared]


def clocks_of(model: type[SyncableModel]) -> list[str]:
    fields: Iterable[Any] = model._meta.concrete_fields
    return [f.attname for f in fields if getattr(f, "auto_now", False) or getattr(f, "auto_now_add", False)]
