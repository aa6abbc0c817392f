"""Bulk writing of many-to-many values, and checks of references."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection
from django.db.models import ForeignKey, Model

from morango_celery.db.dialect import dialect
from morango_celery.django_compat import delete_unread
from morango_celery.oplog import sql
from morango_celery.oplog.meta import MAX_KEYS, AnyField, AnyRelation, concrete, key_field, key_value, rows
from morango_celery.oplog.object_names import name_by_key, name_of_any
from morango_celery.oplog.rows import ObjectRow, Table, table_of
from morango_celery.stream import chunked


def write(table: Table, saved: Sequence[ObjectRow]) -> None:
    """Set the objects' many-to-many values to those of their rows."""
    for name, relation in table.relations.items():
        wanted = {row.key[1]: row.relations[name] for row in saved if name in row.relations}
        if not wanted:
            continue
        through: Any = relation.remote_field.through
        if through._meta.auto_created and not relation.remote_field.symmetrical:
            _write_pairs(relation, wanted)
        else:  # symmetrical pairs, and tables with more than the pair
            for key, values in wanted.items():
                getattr(rows(table.model).get(pk=key), name).set(values)


def _write_pairs(relation: AnyRelation, wanted: Mapping[Any, Collection[Any]]) -> None:
    through: Any = relation.remote_field.through
    ours = through._meta.get_field(relation.m2m_field_name())  # type: ignore[attr-defined]  # it has
    theirs = through._meta.get_field(relation.m2m_reverse_field_name())
    pairs = {
        (key, theirs.get_db_prep_save(value, connection)): (key, value)
        for key, values in wanted.items()
        for value in values
    }
    there = rows(through).filter(**{f"{ours.name}__in": list(wanted)})
    superfluous = []
    for pk, key, value in there.values_list("pk", ours.attname, theirs.attname):
        pair = ours.get_db_prep_save(key, connection), theirs.get_db_prep_save(value, connection)
        if pairs.pop(pair, None) is None:
            superfluous.append(pk)
    for chunk in chunked(superfluous, MAX_KEYS):
        delete_unread(rows(through).filter(pk__in=chunk), DEFAULT_DB_ALIAS)
    through._base_manager.bulk_create(
        [through(**{ours.attname: key, theirs.attname: value}) for key, value in pairs.values()],
        batch_size=MAX_KEYS,
    )


def refer_to(
    table: Table, saved: Iterable[ObjectRow], deleted: Mapping[type[Model], Collection[Any]]
) -> bool:
    """Return True if many-to-many values name deleted objects."""
    for name, relation in table.relations.items():
        target = relation.remote_field.model
        gone = deleted.get(concrete(target))
        if gone and any(
            key_value(target, value) in gone for row in saved for value in row.relations.get(name, ())
        ):
            return True
    return False


def require_targets(tables: Iterable[tuple[Table, Sequence[ObjectRow]]]) -> None:
    """Let references fail now, while the faulty change can be found, instead of at COMMIT.

    PostgreSQL checks its deferred constraints. SQLite can't, so the targets are looked up there: one query
    per referenced table.

    :raises IntegrityError: a reference points nowhere
    """
    if dialect().checks_constraints_early:
        connection.check_constraints()
        return
    wanted: dict[AnyField, set[Any]] = {}
    for table, saved in tables:
        for position, field in enumerate(table.fields):
            if isinstance(field, ForeignKey) and getattr(field, "db_constraint", True):
                values = wanted.setdefault(field.target_field, set())
                values.update(row.values[position] for row in saved if row.values[position] is not None)
        for name, relation in table.relations.items():
            related = relation.remote_field.model
            values = wanted.setdefault(key_field(related), set())
            values.update(key_value(related, value) for row in saved for value in row.relations.get(name, ()))
    for target, values in wanted.items():
        gone = sql.missing(target, values) if values else ()
        for value in sorted(gone, key=str)[:1]:
            raise IntegrityError(f"There is no {target.model._meta.label} with {target.column} {value}.")


def missing_targets(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of missing objects that these refer to, in their order.

    An object that isn't referred to by its primary key is named ``app.model:*``.

    :raises Exception: a field's own, for a value that can't refer to anything
    Cost: a query for each referenced field and `MAX_KEYS` values, and one for each natural key.
    """
    by_value: dict[AnyField, dict[Any, str]] = {}
    by_natural_key: dict[tuple[type[Model], str], list[Any]] = {}
    places: dict[tuple[object, Any], int] = {}
    for data in objects:
        for target, value in _references(data):
            if isinstance(value, list):
                model = target.model
                by_natural_key[model, repr(value)] = value
                places.setdefault((model, repr(value)), len(places))
            else:
                label = target.model._meta.label
                name = name_by_key(label, value) if target.primary_key else name_of_any(label)
                kept = target.get_db_prep_save(target.to_python(value), connection)
                by_value.setdefault(target, {})[kept] = name
                places.setdefault((target, kept), len(places))
    missing = {
        places[model, text]: name_of_any(model._meta.label)
        for (model, text), value in by_natural_key.items()
        if not _has_natural_key(model, value)
    }
    for target, names in by_value.items():
        there = _values_there(target, names)
        missing.update((places[target, kept], name) for kept, name in names.items() if kept not in there)
    return [missing[place] for place in sorted(missing)]


def _references(data: Mapping[str, Any]) -> Iterator[tuple[AnyField, Any]]:
    """Yield an object's references: the target's field, and its value or a natural key."""
    table = table_of(data["model"])
    for field in table.fields:
        value = data.get("pk") if field is key_field(table.model) else data["fields"].get(field.name)
        if isinstance(field, ForeignKey) and value is not None:
            yield field.target_field, value
    for name, relation in table.relations.items():
        for value in data["fields"].get(name) or ():
            yield key_field(relation.remote_field.model), value


def _values_there(target: AnyField, values: Iterable[Any]) -> set[Any]:
    """Return the values, as the driver takes them, that rows have in this field."""
    there: set[Any] = set()
    for chunk in chunked(values, MAX_KEYS):
        found = rows(target.model).filter(**{f"{target.name}__in": chunk})
        there.update(
            target.get_db_prep_save(value, connection)
            for value in found.values_list(target.attname, flat=True)
        )
    return there


def _has_natural_key(model: Any, value: Sequence[Any]) -> bool:
    try:
        model._default_manager.get_by_natural_key(*value)
    except model.DoesNotExist:
        return False
    return True
