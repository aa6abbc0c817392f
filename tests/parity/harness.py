"""The same Store and app rows through Morango's own function and through ours, column by column.

Each side runs in a transaction of its own that is rolled back, so that both begin with the same
database. Deferred constraints are checked at the end, as a COMMIT would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from morango.models import DeletedModels, HardDeletedModels, Store
from morango.models.certificates import Filter
from morango.sync.operations import _deserialize_from_store as morangos

from morango_celery import deserialize_from_store
from tests.factories import SCHOOL_ID, app_rows
from worker.school.models import PROFILE, Unit

Engine = Callable[..., Any]


@dataclass
class Database:
    """What a deserialization left behind."""

    app: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of each model, all columns, by id."""
    dirty: dict[str, bool] = field(default_factory=dict)
    errors: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Error text and exception path of the Store rows that have one."""
    deleted: set[str] = field(default_factory=set)
    hard_deleted: set[str] = field(default_factory=set)
    aborted: str | None = None
    """Path of the exception that ended it as a whole."""

    def ids(self, model_name: str) -> set[str]:
        return {row["id"] for row in self.app[model_name]}


class _RollBack(Exception):  # noqa: N818  (not an error)
    pass


def run(
    engine: Engine,
    rows: Iterable[Store],
    *,
    app: Sequence[Any] = (),
    filter: Filter | None = None,  # noqa: A002
    skip_erroring: bool = False,
    times: int = 1,
) -> Database:
    """Save `rows` and `app`, deserialize with `engine`, and say what is there then."""
    result = Database()
    try:
        with transaction.atomic():
            _save(rows, app)
            try:
                with transaction.atomic():
                    for _ in range(times):
                        engine(PROFILE, skip_erroring=skip_erroring, filter=filter)
                    connection.check_constraints()
            except Exception as error:
                result.aborted = f"{type(error).__module__}.{type(error).__qualname__}"
            _read(result)
            raise _RollBack
    except _RollBack:
        pass
    return result


def _save(rows: Iterable[Store], app: Sequence[Any]) -> None:
    for row in rows:
        row.pk = row.id  # the ids are given; each side inserts the rows anew
        row._state.adding = True
        row.save(force_insert=True)
    for instance in app:
        instance._state.adding = True
        instance.save(update_dirty_bit_to=instance._morango_dirty_bit, force_insert=True)


def _read(result: Database) -> None:
    result.app = app_rows()
    for store in Store.objects.all():
        result.dirty[store.id] = store.dirty_bit
        if store.deserialization_error or store.deserialization_exception:
            result.errors[store.id] = (store.deserialization_error, store.deserialization_exception)
    result.deleted = set(DeletedModels.objects.values_list("id", flat=True))
    result.hard_deleted = set(HardDeletedModels.objects.values_list("id", flat=True))


def app_row(store: Store, **values: Any) -> Unit:
    """The app row of a unit's Store row, as an earlier deserialization left it."""
    defaults = {"name": "old", "_morango_dirty_bit": False}
    return Unit(
        id=store.id,
        school_id=SCHOOL_ID,
        _morango_source_id=store.source_id,
        _morango_partition=store.partition,
        **{**defaults, **values},
    )


def both(rows: Iterable[Store], **arguments: Any) -> tuple[Database, Database]:
    """What Morango makes of the rows, and what we make of them."""
    rows = list(rows)
    return run(morangos, rows, **arguments), run(deserialize_from_store, rows, **arguments)


def assert_same(rows: Iterable[Store], **arguments: Any) -> Database:
    """Both engines leave the same database behind, and neither aborts; returns it."""
    theirs, ours = both(rows, **arguments)
    assert theirs.aborted is None
    assert ours == theirs
    return ours
