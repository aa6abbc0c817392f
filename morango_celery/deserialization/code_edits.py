"""Edits of app rows by models' own code while a sync is applied.

Such a row is dirty as if it had been edited here, and stays so, as in Morango. But its own record, should
that come later in the same run, overwrites it: only an edit that has nothing to do with the sync wins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from django.db import DataError
from django.db.models import Exists, Model, OuterRef, QuerySet
from morango.models.core import Store, SyncableModel

from morango_celery.db.errors import is_unreadable
from morango_celery.deserialization.identifiers import locking
from morango_celery.deserialization.issuer import OUR_STATEMENT
from morango_celery.deserialization.traits import traits_of

MAX_ROWS = 10_000
"""Most rows that one batch remembers. Rows beyond these count as edited here."""
_DIGEST_CHARACTERS = 32

Digests = set[str]
"""Digests of rows as code has left them: of model, id and all values."""


class CodeEdits:
    """Rows that code of models has written in one batch, and that carried no local edit before."""

    def __init__(self, left_by_others: Callable[[Digests], Digests] = lambda digests: set()) -> None:
        """
        :param left_by_others: those of some digests that earlier batches of the run have left behind
        """
        self._left_by_others = left_by_others
        self._ids: dict[type[Model], set[str]] = {}

    def record(self, model: type[SyncableModel], rows: QuerySet[Any], ids: Iterable[str] = ()) -> None:
        """Record rows that code is about to write, but for those that are edited already.

        :param rows: that are there now, or some of them
        :param ids: of all that will be there; rows that aren't there yet can't be edited
        Cost: one statement, which locks the rows; two, and one for the ledger, if some are dirty.
        """
        table = _concrete(model)
        noted = self._ids.setdefault(table, set())
        wanted = set(ids)
        if wanted and wanted <= noted:
            return
        with OUR_STATEMENT:
            is_dirty = dict(locking(rows).values_list("pk", "_morango_dirty_bit"))
        edited = {key for key, dirty in is_dirty.items() if dirty and key not in noted}
        new = (wanted | is_dirty.keys()) - (edited - self.made_by_code(model, edited))
        if len(noted | new) <= MAX_ROWS:
            noted |= new

    def made_by_code(self, model: type[SyncableModel], ids: Collection[str]) -> set[str]:
        """Return those of some dirty rows that are as code has left them, and hold no edit made here.

        Cost: nothing for rows that this batch has written; else two statements.
        """
        noted = self._ids.get(_concrete(model), set())
        found = noted.intersection(ids)
        others = set(ids) - found
        if others:
            by_digest = _digests(model, locking(model._base_manager.filter(pk__in=others)))
            found |= {by_digest[digest] for digest in self._left_by_others(set(by_digest))}
        return found

    def left_behind(self) -> list[str]:
        """Return digests of the rows that this batch left dirty, and that have a record still to come.

        Cost: nothing, or one statement for each model that code has written rows of.
        """
        found: list[str] = []
        for model, ids in self._ids.items():
            waiting = Store.objects.filter(pk=OuterRef("pk"), dirty_bit=True)
            rows = model._base_manager.filter(Exists(waiting), pk__in=ids, _morango_dirty_bit=True)
            found += _digests(model, rows) if ids else ()
        return sorted(found)

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Forget the rows noted inside, if an exception leaves the block: their writes are undone."""
        before = {model: set(ids) for model, ids in self._ids.items()}
        try:
            yield
        except BaseException:
            self._ids = before
            raise


_current: ContextVar[CodeEdits | None] = ContextVar("code_edits", default=None)


@contextmanager
def recording(edits: CodeEdits) -> Iterator[CodeEdits]:
    """Have `edits` record the rows that code writes inside, in this context only."""
    token = _current.set(edits)
    try:
        yield edits
    finally:
        _current.reset(token)


def current() -> CodeEdits:
    """Return the active `CodeEdits`; outside of a batch, an empty one."""
    return _current.get() or CodeEdits()


def before_save(sender: type[Model], instance: Any) -> None:
    """Record a row that is about to be saved, if code of a model does that, and leaves it dirty."""
    edits = _current.get()
    if edits is not None and isinstance(instance, SyncableModel) and instance._morango_dirty_bit:
        edits.record(sender, sender._base_manager.filter(pk=instance.pk), [instance.pk])


def before_update(rows: QuerySet[Any]) -> None:
    """Record rows that are about to be updated, and dirty then, if code of a model does that."""
    edits = _current.get()
    if edits is not None:
        model = rows.model
        edits.record(model, model._base_manager.filter(pk__in=rows.order_by().values("pk")))


def before_insert(rows: QuerySet[Any], instances: Iterable[Any]) -> None:
    """Record rows that are about to be created in bulk, if code of a model does that."""
    edits = _current.get()
    if edits is not None:
        ids = [instance.pk for instance in instances if instance.pk is not None]
        edits.record(rows.model, rows.model._base_manager.filter(pk__in=ids), ids)


def _concrete(model: type[Model]) -> type[Model]:
    return model._meta.concrete_model or model


def _digests(model: type[Model], rows: QuerySet[Any]) -> dict[str, str]:
    """Return the ids of rows by their digests; of rows that Python can't hold, none at all."""
    label = _concrete(model)._meta.label
    names = [field.attname for field in traits_of(cast(type[SyncableModel], model)).fields]
    found = {}
    with OUR_STATEMENT:
        try:
            for key, *values in rows.values_list("pk", *names):
                said = json.dumps([label, *values], default=str)
                found[hashlib.sha256(said.encode()).hexdigest()[:_DIGEST_CHARACTERS]] = key
        except (ValueError, OverflowError, DataError) as error:
            if not is_unreadable(error):
                raise
            return {}
    return found
