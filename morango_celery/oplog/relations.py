"""Many-to-many values in bulk, and whether what is referred to is there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection
from django.db.models import ForeignKey, Model

from morango_celery.oplog import sql
from morango_celery.oplog.meta import AnyField, AnyRelation, concrete, key_field, key_value, rows
from morango_celery.oplog.rows import ObjectRow, Table, name_by_key, name_of_any
from morango_celery.upstream import uses_postgresql


def write(table: Table, saved: Sequence[ObjectRow]) -> None:
    """Let the objects have the many-to-many values of their rows, and no others."""
    for name, relation in table.relations.items():
        wanted = {row.key[1]: row.relations[name] for row in saved if name in row.relations}
        if not wanted:
            continue
        through: Any = relation.remote_field.through
        if through._meta.auto_created and not relation.remote_field.symmetrical:
            _write_pairs(relation, wanted)
        else:  # where one object's values are another's, too, or carry more than the pair
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
    if superfluous:
        unwanted: Any = rows(through).filter(pk__in=superfluous)
        unwanted._raw_delete(DEFAULT_DB_ALIAS)
    through._base_manager.bulk_create(
        [through(**{ours.attname: key, theirs.attname: value}) for key, value in pairs.values()]
    )


def refer_to(
    table: Table, saved: Iterable[ObjectRow], deleted: Mapping[type[Model], Collection[Any]]
) -> bool:
    """Whether many-to-many values name objects that are deleted."""
    for name, relation in table.relations.items():
        target = relation.remote_field.model
        gone = deleted.get(concrete(target))
        if gone and any(
            key_value(target, value) in gone for row in saved for value in row.relations.get(name, ())
        ):
            return True
    return False


def require_targets(tables: Iterable[tuple[Table, Sequence[ObjectRow]]]) -> None:
    """Let references fail now, where the culprit can be found, instead of at COMMIT.

    On PostgreSQL the deferred constraints are checked. SQLite can't; there the targets are looked up: one
    query per table that is referred to.

    :raises IntegrityError: a reference points nowhere
    """
    if uses_postgresql():
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


def missing_targets(table: Table, data: Mapping[str, Any]) -> Iterator[str]:
    """The names of the objects that this one refers to and that aren't there.

    One that isn't called by its primary key is named ``app.model:*``.
    """
    for field in (*table.fields, *table.relations.values()):
        value = data["fields"].get(field.name)
        if field is key_field(table.model):
            value = data.get("pk")
        if not field.remote_field or value is None:
            continue
        target = field.remote_field.model
        for one in value if field.name in table.relations else [value]:
            if not _is_there(field, target, one):
                by_key = not isinstance(one, list) and (
                    not isinstance(field, ForeignKey) or field.target_field.primary_key
                )
                label = target._meta.label
                yield name_by_key(label, one) if by_key else name_of_any(label)


def _is_there(field: Any, target: Any, value: Any) -> bool:
    if isinstance(value, list):
        try:
            target._default_manager.get_by_natural_key(*value)
        except target.DoesNotExist:
            return False
        return True
    name = field.target_field.attname if isinstance(field, ForeignKey) else "pk"
    return rows(target).filter(**{name: value}).exists()
