"""The plan of a run: its steps, in foreign key order, and the records that wait for each."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from django.db import connection
from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL
from typing_extensions import override

from morango_celery.db.dialect import dialect
from morango_celery.db.prepared import MAX_STATEMENTS, Statement, selecting, text
from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.dependency_graph import Model, components, exclusive_models
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.models import Run
from morango_celery.reading.cursors import stream
from morango_celery.reading.partitions import CHUNK_ROWS
from morango_celery.reading.prefixes import FEW, outermost
from morango_celery.reading.sizes import StoredBytes
from morango_celery.runs.tree import Node, next_wave


@dataclass(frozen=True)
class Step:
    """Models with records that can be handed out at the same time."""

    models: tuple[Model, ...]
    is_tree: bool = False
    """True if parents have to be done before their children are handed out."""
    unregistered: bool = False
    """True for the records that no installed app has a model for: each gets an error that says so."""
    exclusive: tuple[Model, ...] = ()
    """The exclusive ones of the models: their batches are executed one after another, beside the others'."""

    def split(self) -> tuple[Step, Step]:
        """Return the step with its exclusive models alone, and with the others alone."""
        others = tuple(model for model in self.models if model not in self.exclusive)
        return replace(self, models=self.exclusive), replace(self, models=others, exclusive=())


def steps(profile: str) -> Sequence[Step]:
    """Return the steps of a run, in order.

    Models of one level don't depend on each other and share a step. A tree is a step of its own.
    """
    return _steps(profile, exclusive_models(profile))


@lru_cache(maxsize=32)
def _steps(profile: str, exclusive_models: frozenset[Model]) -> Sequence[Step]:
    found = []
    for _, level in groupby(components(profile), key=lambda component: component.level):
        plain: list[Model] = []
        exclusive: list[Model] = []
        trees: list[Step] = []
        for component in level:
            alone = () if exclusive_models.isdisjoint(component.models) else component.models
            if component.is_tree:
                trees.append(Step(component.models, is_tree=True, exclusive=alone))
            else:
                plain.extend(component.models)
                exclusive.extend(alone)
        if plain:
            found.append(Step(tuple(plain), exclusive=tuple(exclusive)))
        found.extend(trees)
    return (*found, Step((), unregistered=True))


NAMED = 3
"""Largest number of models that a description names."""


def description(covered: Sequence[Step]) -> str:
    """Return the names of the models of a stage, such as "facilityuser", or "unit + lesson"."""
    names = [model.morango_model_name for step in covered for model in step.models]
    names += ["unknown models" for step in covered if step.unregistered]
    more = [f"{len(names) - NAMED + 1} more"] if len(names) > NAMED else []
    return " + ".join([*names[: NAMED - len(more)], *more])


SizedId = tuple[str, int]
"""The id of a record, and the bytes of its JSON."""

RETRY_MARK = ""
"""The error text of a record that waits for a run which only retries errors.

Morango takes it for no error, as it does NULL. So a record with a mark that is left over, from a run that
was cancelled, is taken by any later run.
"""


@dataclass(frozen=True)
class Remainder:
    """All records that a run has left to hand out, where one batch holds them."""

    sized_ids: list[SizedId]
    """The records, in foreign key order, and by partition within a model."""
    covered: list[Step]
    """The steps that have any of the records."""
    in_error: bool = False
    """True if some of the records are in error, and wait once their errors are cleared."""


def remainder(
    run: Run, plan: Sequence[Step], *, rows: int, size_bytes: int, with_errors: bool = False
) -> Remainder | None:
    """Return the waiting records of the steps from `run.step` on, if one batch holds them.

    :param rows: number of records that a batch holds
    :param size_bytes: bytes of JSON that a batch holds
    :param with_errors: True to include records in error, except for quarantined ones
    :returns: None if there are too many, or if any is of an exclusive model
    Cost: one statement, for any number of models. Models without waiting records, as most are in a small
    sync, cost nothing more.
    """
    places = {
        model.morango_model_name: (step_number, place)
        for step_number, step in enumerate(plan)
        for place, model in enumerate(step.models)
    }
    done = [name for name, (step_number, _) in places.items() if step_number < run.step]
    found = _first_waiting(run, done, rows + 1, with_errors=with_errors)
    if len(found) > rows or sum(row[1] for row in found) > size_bytes:
        return None
    without_model = (len(plan) - 1, 0)
    found.sort(key=lambda row: (places.get(row[2], without_model), row[3]))
    numbers = sorted({places.get(row[2], without_model)[0] for row in found})
    covered = [plan[number] for number in numbers]
    exclusive = {model.morango_model_name for step in covered for model in step.exclusive}
    if any(row[2] in exclusive for row in found):
        return None
    return Remainder([row[:2] for row in found], covered, any(row[4] for row in found))


def _first_waiting(run: Run, done: Sequence[str], rows: int, *, with_errors: bool) -> list[tuple[Any, ...]]:
    """Return `_SIZED_COLUMNS` of waiting records, of models that are not done."""
    prefixes = [prefix for prefix in outermost(run.sync_filter or ()) if prefix]
    if len(prefixes) > FEW:
        waiting = _waiting(run.profile, prefixes, done, run.retry_errors, with_errors)
        return list(waiting.values_list(*_SIZED_COLUMNS)[:rows])
    statement = _first_waiting_of(run.retry_errors, with_errors, len(prefixes), len(done), rows)
    return statement.rows(_SIZED_COLUMNS, run.profile, *prefixes, *done)


_SIZED_COLUMNS = ("fixed_id", "record_bytes", "model_name", "partition", "in_error")


@lru_cache(maxsize=MAX_STATEMENTS)
def _first_waiting_of(only_marked: bool, with_errors: bool, prefixes: int, done: int, rows: int) -> Statement:
    profile, *others = map(text, range(1 + prefixes + done))
    waiting = _waiting(profile, others[:prefixes], others[prefixes:], only_marked, with_errors)
    return selecting(waiting.values_list(*_SIZED_COLUMNS)[:rows])


def _waiting(
    profile: str, prefixes: Sequence[str], done: Sequence[str], only_marked: bool, with_errors: bool
) -> Any:
    run = Run(profile=profile, filter="\n".join(prefixes) or None, retry_errors=only_marked)
    source = PendingRecordSource(run, Step(()))
    source.skip_errored = not with_errors
    records: Any = source.records().filter(source.condition).exclude(model_name__in=done)
    if with_errors:
        records = records.filter(takes(run))
    in_error = ExpressionWrapper(Q(deserialization_error__isnull=False), output_field=BooleanField())
    return records.char_ids_list().annotate(record_bytes=StoredBytes("serialized"), in_error=in_error)


def takes(run: Run) -> Q:
    """Return the condition for the dirty records that a pending run will hand out, by their errors.

    The run's beginning clears or marks these errors (`passes.forget_errors`).
    """
    if run.skip_erroring:
        return Q(deserialization_error="") | Q(deserialization_error=None)
    if run.retry_errors:
        return ~Q(deserialization_error=None) & retried(run)
    return Q(deserialization_error=None) | ~is_quarantined()


def retried(run: Run) -> Q:
    """Return the condition for the records in error that a run retries, if it is limited to some."""
    chosen = Q()
    if run.only_model:
        chosen &= Q(model_name=run.only_model)
    if run.only_exception:
        name = run.only_exception
        chosen &= Q(deserialization_exception=name) | Q(deserialization_exception__endswith=f".{name}")
    return chosen


def waiting_models(run: Run) -> frozenset[str]:
    """Return the names of the models with waiting records, among those of installed apps.

    Cost: one statement, which looks for one record of each model.
    """
    source = PendingRecordSource(run, Step(()))
    names = [model.morango_model_name for model in StoreModelSource(run.profile).models()]
    named = RawSQL("names.value", [])
    waiting = source.records().filter(source.condition, model_name=named).values("pk")
    sql, parameters = waiting.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT names.value FROM {dialect().elements}(%s) AS names WHERE EXISTS ({sql})",  # noqa: S608  (Django's)
            [json.dumps(names), *parameters],
        )
        return frozenset(name for (name,) in cursor.fetchall())


class PendingRecordSource(StoreModelSource):
    """The records of one step that a run has not tried yet.

    Errors of earlier runs were cleared when the run began, or are to be skipped. So a record in error isn't
    waiting, no matter in which run it failed. A run that only retries errors has marked its records.
    """

    def __init__(self, run: Run, step: Step, waiting: Collection[str] | None = None) -> None:
        """Take the models of the step, without looking at their records.

        :param waiting: names from `waiting_models`, to leave out all other models; None for all
        """
        models = [m for m in step.models if waiting is None or m.morango_model_name in waiting]
        super().__init__(run.profile, run.sync_filter, skip_errored=True, models=models)
        self.step = step
        self.only_marked = run.retry_errors

    @override
    def records(self) -> QuerySet[Any]:
        records = super().records()
        return records.filter(deserialization_error=RETRY_MARK) if self.only_marked else records

    @override
    def ordering(self) -> Sequence[str]:
        """Sort by partition alone, as an index does: the order of the prefixes makes no difference."""
        return [self.partition_field]

    @override
    def querysets(self, partition_condition: Q | None = None) -> Iterator[QuerySet[Any]]:
        if not self.step.unregistered:
            yield from super().querysets(partition_condition)
            return
        known = [model.morango_model_name for model in StoreModelSource(self.profile).models()]
        condition = self.condition if partition_condition is None else partition_condition
        yield self.records().filter(condition).exclude(model_name__in=known)

    def sized_ids(self) -> Iterator[SizedId]:
        """Yield the ids, in order, with the bytes of each record."""
        for queryset in self.querysets():
            yield from self._sized(queryset)

    def deleted_ids(self) -> Iterator[SizedId]:
        """Yield the deleted records of a tree.

        They go first: the rows that a deletion takes along must not depend on batches at the same time.
        """
        queryset: Any
        for queryset in self.querysets():
            yield from self._sized(queryset.filter(~self._is_edited(), deleted=True))

    def nodes(self) -> Iterator[Node]:
        """Yield all records of a tree.

        Records that conflict with a local edit, as they would at each attempt, are left to the last; so are
        their descendants.
        """
        queryset: Any
        is_edited = ExpressionWrapper(self._is_edited(), output_field=BooleanField())
        for queryset in self.querysets():
            yield from self._sized(queryset, "_self_ref_fk", is_edited)

    def next_wave(self, size: int, size_bytes: int) -> Iterator[SizedId]:
        """Yield the next wave of a tree, as `tree.next_wave` does."""
        return next_wave(self.nodes(), size, size_bytes)

    def _sized(self, queryset: Any, *columns: Any) -> Iterator[Any]:
        """Yield the id, the bytes, and `columns` of each record."""
        sized = queryset.char_ids_list().values_list("fixed_id", StoredBytes("serialized"), *columns)
        return stream(sized, CHUNK_ROWS)

    def _is_edited(self) -> Q:
        condition = Q()
        for model in self.step.models:
            edited = model.syncing_objects.filter(_morango_dirty_bit=True, pk=OuterRef("pk"))
            condition |= Q(Exists(edited))
        return condition
