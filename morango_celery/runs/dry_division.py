"""Division of the records of a run that never takes place: it reads the Store, and writes nothing.

Names of models stand where a real run has ids: they are counted, and no id is held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    Value,
    When,
)
from morango.models.core import DeletedModels, HardDeletedModels
from typing_extensions import override

from morango_celery.conf import batch_size_records, settings
from morango_celery.deserialization import StoreModelSource
from morango_celery.deserialization.dependency_graph import Model
from morango_celery.deserialization.quarantine import is_quarantined
from morango_celery.models import Batch, Run
from morango_celery.reading.cursors import stream
from morango_celery.reading.partitions import CHUNK_ROWS
from morango_celery.reading.sizes import StoredBytes
from morango_celery.runs.batching import Division
from morango_celery.runs.plan import PendingRecordSource, Remainder, SizedId, Step, takes
from morango_celery.runs.tree import Forest
from morango_celery.serialization.edits import Edits
from morango_celery.serialization.source import AppModelSource

HARD_DELETED_BYTES = 2
"""Bytes of ``{}``, which the serialization writes over a record that was deleted for good."""


@dataclass
class Totals:
    """Number of dirty records under a run's filter, by their prospects."""

    in_error: int = 0
    """Records in error, except for quarantined ones."""
    quarantined: int = 0
    merged: int = 0
    """Records that the run would take if the serialization before it didn't make them clean."""


class Waiting:
    """The records that a run would find once local edits are in the Store and old errors are forgotten."""

    def __init__(self, run: Run, edits: Edits) -> None:
        """
        :param edits: the tables in which local edits wait
        """
        self.run = run
        self._source = StoreModelSource(run.profile, run.sync_filter)
        app_rows = AppModelSource(run.profile, run.sync_filter)
        edited = [model for model in app_rows.models() if edits.are_in(model)]
        merged = [app_rows.queryset(model).order_by().filter(pk=OuterRef("pk")) for model in edited]
        if edits.are_noted_in(DeletedModels):
            merged.append(DeletedModels.objects.filter(profile=run.profile, id=OuterRef("pk")))
        self._merged = Q()
        for rows in merged:
            self._merged |= Q(Exists(rows))
        self.record_bytes: Any = StoredBytes("serialized")
        if edits.are_noted_in(HardDeletedModels):
            noted = HardDeletedModels.objects.filter(profile=run.profile, id=OuterRef("pk"))
            emptied = When(Exists(noted), then=Value(HARD_DELETED_BYTES))
            self.record_bytes = Case(emptied, default=self.record_bytes, output_field=IntegerField())

    def records(self) -> QuerySet[Any]:
        """Return the query for all of the records, but for the filter."""
        taken = self._source.records().filter(takes(self.run))
        return taken.filter(~self._merged) if self._merged else taken

    def count(self) -> tuple[Totals, Counter[str], Counter[str]]:
        """Return the totals, and the number and the bytes of the records by the names of their models.

        Cost: one query, which reads the lengths of all dirty records under the filter.
        """
        totals, records, record_bytes = Totals(), Counter[str](), Counter[str]()
        in_error = Q(deserialization_error__isnull=False) & ~Q(deserialization_error="")
        kinds = {
            "is_taken": takes(self.run),
            "is_in_error": in_error,
            "is_left_alone": is_quarantined() & Q(deserialization_exception__isnull=False),
        }
        if self._merged:
            kinds["is_merged"] = self._merged
        flags = {
            name: ExpressionWrapper(condition, output_field=BooleanField())
            for name, condition in kinds.items()
        }
        rows = (
            self._source.records()
            .filter(self._source.condition)
            .annotate(record_bytes=self.record_bytes, **flags)
            .values("model_name", *kinds)
            .annotate(count=Count("*"), total_bytes=Sum("record_bytes"))
            .order_by()
        )
        for row in rows:
            number = row["count"]
            if row["is_left_alone"]:
                totals.quarantined += number
            elif row["is_in_error"]:
                totals.in_error += number
            if not row["is_taken"]:
                continue
            if row.get("is_merged"):
                totals.merged += number
            else:
                records[row["model_name"]] += number
                record_bytes[row["model_name"]] += row["total_bytes"]
        return totals, records, record_bytes


class DryDivision(Division):
    """Division of records that are counted, and not handed out."""

    def __init__(self, waiting: Waiting) -> None:
        super().__init__(waiting.run)
        self.waiting = waiting
        self.totals, self.records, self.bytes = waiting.count()
        self.stage_models: Counter[str] = Counter()
        """Number of records of the present stage, by the names of their models."""
        self._trees: dict[tuple[Model, ...], _Tree] = {}

    def next_stage(self) -> bool:
        """Divide one more stage. Return False if no records are left."""
        self.stage_models = Counter()
        self.run.open_batches = 0
        while not self.run.open_batches:
            rest = self.take_rest()
            if rest is None:
                self.open_next_stage()
            elif rest.sized_ids:
                self.hand_out(rest.sized_ids, *rest.covered)
            else:
                return False
        return True

    def close(self) -> None:
        """Remove the scratch databases of trees."""
        for tree in self._trees.values():
            tree.close()

    @override
    def remainder(self, *, with_errors: bool) -> Remainder | None:
        left = [step for step in self.plan[self.run.step :] if self._number_of(step)]
        names = [name for step in left for name in self._names(step)]
        is_any_exclusive = any(self._number_of(step.split()[0]) for step in left if step.exclusive)
        if (
            is_any_exclusive
            or sum(self.records[name] for name in names) > batch_size_records()
            or sum(self.bytes[name] for name in names) > settings.BATCH_SIZE_BYTES
        ):
            return None
        # Without their bytes, since they fit
        found = chain.from_iterable(repeat((name, 0), self.records[name]) for name in names)
        return Remainder(list(found), left)

    def _number_of(self, step: Step) -> int:
        return sum(self.records[name] for name in self._names(step))

    def _names(self, step: Step) -> list[str]:
        if not step.unregistered:
            return [model.morango_model_name for model in step.models]
        known = {model.morango_model_name for each in self.plan for model in each.models}
        return [name for name in self.records if name not in known]

    @override
    def waiting_models(self) -> Collection[str]:
        return {name for name, number in self.records.items() if number}

    @override
    def source(self, step: Step, waiting: Collection[str] | None = None) -> PendingRecordSource:
        if not step.is_tree:
            return _Source(self, step, waiting)
        return self._trees.setdefault(step.models, _Tree(self, step, waiting))

    @override
    def write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.stage_models.update(batch.store_ids)


class _Source(PendingRecordSource):
    """The records of one step; the name of its model stands for each one's id."""

    def __init__(self, division: DryDivision, step: Step, waiting: Collection[str] | None) -> None:
        super().__init__(division.run, step, waiting)
        self.division = division

    @override
    def records(self) -> QuerySet[Any]:
        return self.division.waiting.records()

    @override
    def _sized(self, queryset: Any, *columns: Any) -> Iterator[Any]:
        sized = queryset.values_list("model_name", self.division.waiting.record_bytes, *columns)
        return stream(sized, CHUNK_ROWS)


class _Tree(_Source):
    """The records of a tree, of which each call hands out more.

    Deleted ones go first, as in a real run. Then the rest is put into a scratch database.
    """

    def __init__(self, division: DryDivision, step: Step, waiting: Collection[str] | None) -> None:
        super().__init__(division, step, waiting)
        self._are_deleted_done = False
        self._forest: Forest | None = None
        self._first_places: list[int] = []
        self._names: list[str] = []

    def close(self) -> None:
        if self._forest is not None:
            self._forest.close()

    @override
    def records(self) -> QuerySet[Any]:
        return super().records().filter(deleted=False) if self._are_deleted_done else super().records()

    @override
    def sized_ids(self) -> Iterator[SizedId]:
        if self._forest is None:
            return super().sized_ids()
        return ((self._name(place), record_bytes) for place, record_bytes in self._forest.rest())

    @override
    def deleted_ids(self) -> Iterator[SizedId]:
        if self._are_deleted_done:
            return
        for queryset in self.querysets():
            for name, record_bytes in self._sized(queryset.filter(deleted=True)):
                yield self._handed_out(name, record_bytes)
        self._are_deleted_done = True

    @override
    def next_wave(self, size: int, size_bytes: int) -> Iterator[SizedId]:
        if self._forest is None:
            self._forest = Forest(self._nodes())
        for place, record_bytes in self._forest.take_wave(size, size_bytes):
            yield self._handed_out(self._name(place), record_bytes)

    def _handed_out(self, name: str, record_bytes: int) -> SizedId:
        self.division.records[name] -= 1
        self.division.bytes[name] -= record_bytes
        return name, record_bytes

    def _nodes(self) -> Iterator[tuple[str, int, str, bool]]:
        place = 0
        queryset: Any
        for queryset in self.querysets():
            columns = ("fixed_id", self.division.waiting.record_bytes, "_self_ref_fk", "model_name")
            rows = stream(queryset.char_ids_list().values_list(*columns), CHUNK_ROWS)
            for store_id, record_bytes, parent, name in rows:
                place += 1
                if not self._names or self._names[-1] != name:
                    self._first_places.append(place)
                    self._names.append(name)
                yield store_id, record_bytes, parent, False

    def _name(self, place: int) -> str:
        return self._names[bisect_right(self._first_places, place) - 1]
