"""Hand-written SQL of serialization, for PostgreSQL and SQLite."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet
from morango.models.core import DatabaseMaxCounter, RecordMaxCounter, Store, SyncableModel

from morango_celery.db.dialect import dialect
from morango_celery.db.driver import copy_from, input_text
from morango_celery.reading.sizes import THIN_BYTES
from morango_celery.serialization.further import further_fields, new_values
from morango_celery.serialization.task import SerializeTask

_STORE = Store._meta.db_table
_COUNTERS = RecordMaxCounter._meta.db_table


@dataclass(frozen=True)
class Saver:
    """This instance, at its new counter."""

    instance_id: str
    """32-digit hex."""
    counter: int


def stored(ids: Sequence[str]) -> dict[str, tuple[str | None, int]]:
    """Return the texts of the Store rows among `ids`, and their bytes; None in place of a large text."""
    size = dialect().byte_length("serialized")
    thin = f"CASE WHEN {size} <= {THIN_BYTES} THEN serialized END"
    return {found: (text, bytes_) for found, text, bytes_ in _looked_up(f"{thin}, {size}", ids)}


def stored_whole(ids: Sequence[str]) -> dict[str, str]:
    """Return the texts of the Store rows among `ids`, even large ones."""
    return dict(_looked_up("serialized", ids))


def _looked_up(columns: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {dialect().hex_digits('id')}, {columns} FROM {_STORE} WHERE id {dialect().id_list}",
            [dialect().ids(ids)],
        )
        return list(cursor.fetchall())


def insert(model: type[SyncableModel], tasks: Collection[SerializeTask], saver: Saver) -> None:
    """Insert new Store rows.

    :raises IntegrityError: another transaction has inserted one of them meanwhile
    """
    further = further_fields()
    same = {
        "profile": model.morango_profile,
        "model_name": model.morango_model_name,
        "last_saved_instance": saver.instance_id,
        "last_saved_counter": saver.counter,
        "conflicting_serialized_data": "",
        "dirty_bit": False,
        "deleted": False,
        "hard_deleted": False,
    }
    rows = [(task.obj, task.serialized) for task in tasks]
    own = ("id", "serialized", "partition", "source_id", "_self_ref_fk")
    names = ", ".join([*own, *same, *(connection.ops.quote_name(field.column) for field in further)])
    with connection.cursor() as cursor:
        if dialect().has_arrays:
            constants = "\t".join(map(_copied, map(str, same.values())))
            lines = [
                # JSON has its control characters escaped
                f"{obj.id}\t{text.replace(_ESCAPE, _ESCAPED)}\t{_copied(obj.partition)}"
                f"\t{_copied(obj.source_id)}\t{_copied(obj.self_ref_fk)}\t{constants}"
                f"{''.join(map(_copied_further, new_values(further)))}\n"
                for obj, text in rows
            ]
            copy_from(cursor, f"COPY {_STORE} ({names}) FROM STDIN", "".join(lines).encode())
        else:
            marks = ", ".join(["%s"] * (len(own) + len(same) + len(further)))
            cursor.executemany(
                f"INSERT INTO {_STORE} ({names}) VALUES ({marks})",
                [
                    (
                        *(obj.id, text, obj.partition, obj.source_id, obj.self_ref_fk),
                        *same.values(),
                        *new_values(further),
                    )
                    for obj, text in rows
                ],
            )


def update(tasks: Collection[SerializeTask], saver: Saver) -> None:
    """Update Store rows. A dirty one keeps its text as conflicting data."""
    assignments = (
        "last_saved_instance = %s, last_saved_counter = %s, dirty_bit = false, deleted = false,"
        " hard_deleted = false, last_transfer_session_id = NULL,"
        " conflicting_serialized_data = CASE WHEN dirty_bit"
        f" THEN {_STORE}.serialized || {{newline}} || conflicting_serialized_data"
        " ELSE conflicting_serialized_data END"
    )
    same = (saver.instance_id, saver.counter)
    with connection.cursor() as cursor:
        if dialect().has_arrays:
            cursor.execute(
                f"UPDATE {_STORE} SET serialized = synced.serialized,"
                f" {assignments.format(newline='chr(10)')}"
                # No JSON that was made here holds a line break
                " FROM unnest(%s::uuid[], string_to_array(%s, chr(10))) AS synced (id, serialized)"
                f" WHERE {_STORE}.id = synced.id",
                [
                    *same,
                    dialect().ids(task.id for task in tasks),
                    "\n".join(task.serialized for task in tasks),
                ],
            )
        else:
            cursor.executemany(
                f"UPDATE {_STORE} SET serialized = %s, {assignments.format(newline='char(10)')}"
                " WHERE id = %s",
                [(task.serialized, *same, task.id) for task in tasks],
            )


def count(ids: QuerySet[Any], saver: Saver) -> None:
    """Enter the saver's counter for Store rows.

    :param ids: a query of their ids alone
    """
    query, parameters = ids.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH saved (id) AS ({query})"  # the column goes by another name where a model has two tables
            f" INSERT INTO {_COUNTERS} (instance_id, counter, store_model_id)"
            " SELECT %s, %s, saved.id FROM saved WHERE true"
            " ON CONFLICT (store_model_id, instance_id) DO UPDATE SET counter = excluded.counter",
            [*parameters, saver.instance_id, saver.counter],
        )


def raise_database_counters(prefixes: Iterable[str], saver: Saver) -> None:
    """Note the saver's counter for each prefix of a filter."""
    table = DatabaseMaxCounter._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (instance_id, partition, counter)"
            f" SELECT %s, prefix.value, %s FROM {dialect().elements}(%s) AS prefix WHERE true"
            " ON CONFLICT (instance_id, partition) DO UPDATE SET counter = excluded.counter",
            [saver.instance_id, saver.counter, json.dumps(list(dict.fromkeys(prefixes)), ensure_ascii=False)],
        )


def lock_table(model: type[Model]) -> None:
    """Let nobody else write rows of `model` until this transaction ends; reading goes on."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if not dialect().has_one_writer:
            cursor.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        else:  # a reader can't become the writer once another has written
            cursor.execute(f"UPDATE {table} SET id = id WHERE 0")


def _copied_further(value: Any) -> str:
    """Return a value of a further column, as COPY reads it behind others."""
    if value is None:
        return "\t\\N"
    return f"\t{_copied(str(value) if isinstance(value, bool | int | float) else input_text(value))}"


def _copied(text: str) -> str:
    """Return a text as COPY reads it."""
    text = text.replace(_ESCAPE, _ESCAPED)
    return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


_ESCAPE, _ESCAPED = "\\", "\\\\"
