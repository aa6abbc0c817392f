"""Plans: Store rows become stages and batches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from morango.models import Store

from morango_celery.models import Batch, Run
from morango_celery.runs.plan import Step, steps
from morango_celery.runs.producer import start
from tests.support import factories
from tests.support.run_helpers import MISSING, Stages, carry_out, errors, new_run
from worker.school.models import PROFILE, Attempt, Feedback, Learner, Lesson, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


KEYS = {"parent_id", "unit_id", "learner_id", "lesson_id", "attempt_id"}


class TestPlan:
    def test_steps_follow_the_models_dependencies(self) -> None:
        unit, people, attempt, feedback, unregistered = steps(PROFILE)

        assert unit == Step((Unit,), is_tree=True)
        assert set(people.models) == {Learner, Lesson}
        assert (attempt, feedback) == (Step((Attempt,)), Step((Feedback,)))
        assert unregistered == Step((), unregistered=True)

    def test_steps_are_worked_out_once_and_anew_for_other_settings(self, settings: Any) -> None:
        before = steps(PROFILE)
        assert steps(PROFILE) is before

        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "EXCLUSIVE_MODELS": ["school.Attempt"]}

        assert [step.exclusive for step in steps(PROFILE)] == [(), (), (Attempt,), (), ()]

    @pytest.mark.parametrize("size", [100, 1000])
    def test_run_that_fits_is_one_batch(self, batch_size: Callable[[int], None], size: int) -> None:
        batch_size(size)
        sent = factories.fill_store(100)

        run, stages = carry_out()

        assert [len(batch) for stage in stages for batch in stage] == [100]
        assert (run.stage, run.saved, run.failed) == (1, 100, 0)
        assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent

    def test_run_without_records_has_no_stage(self) -> None:
        factories.fill_store(10, dirty=False)

        run, stages = carry_out()

        assert (run.state, run.stage, run.records, stages) == (Run.State.COMPLETED, 0, 0, [])
        assert not Batch.objects.exists()

    @pytest.mark.parametrize("size", [1, 7, 40, 150])
    def test_large_run_has_stages_that_respect_foreign_keys(
        self, batch_size: Callable[[int], None], size: int
    ) -> None:
        # Given more records than a batch holds
        batch_size(size)
        factories.fill_store(200)
        refers_to = {
            row.id: {value for name, value in json.loads(row.serialized).items() if name in KEYS}
            for row in Store.objects.all()
        }

        run, stages = carry_out()

        # Then no batch is too large and no record is handed out twice
        handed_out = [store_id for stage in stages for batch in stage for store_id in batch]
        assert max(len(batch) for stage in stages for batch in stage) <= size
        assert sorted(handed_out) == sorted(refers_to)
        assert run.stage == len(stages) > 1

        # ... and all that a record refers to comes in an earlier stage, or in the same batch
        seen: set[str] = set()
        for stage in stages:
            for batch in stage:
                for store_id in batch:
                    assert refers_to[store_id] - {None} <= seen | set(batch)
            seen.update(store_id for batch in stage for store_id in batch)
        assert (run.saved, run.failed, run.pass_number) == (200, 0, 1)

    def test_consecutive_steps_that_fit_in_one_batch_share_it(
        self, batch_size: Callable[[int], None]
    ) -> None:
        # Given two units, two lessons, six learners and an attempt, and batches of eight
        batch_size(8)
        units = [factories.store_row("unit") for _ in range(2)]
        lessons = [factories.store_row("lesson", unit=unit) for unit in units]
        for _ in range(6):
            factories.store_row("learner", unit=units[0])
        factories.store_row("attempt", learner_id=MISSING)

        _, stages = carry_out()

        # Then lessons and learners fill one, and the attempt has to wait
        assert [[len(batch) for batch in stage] for stage in stages] == [[2], [8], [1]]
        assert {row.id for row in lessons} < set(stages[1][0])

    def test_records_of_unregistered_models_come_last_with_an_error(
        self, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(1)
        spaceship = factories.store_row("spaceship", partition="5c")
        unit = factories.store_row("unit")

        run, stages = carry_out()

        assert stages == [[[unit.id]], [[spaceship.id]]]
        assert (run.saved, run.failed) == (1, 1)
        assert errors() == {spaceship.id: "morango_celery.errors.UnknownModelError"}


class TestBytes:
    """Batches of large records hold fewer of them."""

    LIMIT = 10_000

    @pytest.fixture(autouse=True)
    def limit(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"BATCH_SIZE_RECORDS": 10, "BATCH_SIZE_BYTES": self.LIMIT}

    @staticmethod
    def bytes_of(store_ids: list[str]) -> int:
        stored = Store.objects.filter(pk__in=store_ids).values_list("serialized", flat=True)
        return sum(len(text.encode()) for text in stored)

    def carry_out(self) -> tuple[Run, Stages]:
        run, stages = carry_out()
        for stage in stages:
            for batch in stage:
                assert len(batch) == 1 or self.bytes_of(batch) <= self.LIMIT
        return run, stages

    def test_records_are_cut_by_bytes_and_by_number(self) -> None:
        # Given attempts of about 3,000 bytes, most of whose characters have two each, and then small ones
        learner = factories.store_row("learner", unit=factories.store_row("unit"))
        for number in range(30):
            row = factories.build_store_row("attempt", learner=learner, partition=f"{number:02}")
            data = json.loads(row.serialized) | {"answer": "ä" * 1_300 if number < 9 else "x"}
            row.serialized = json.dumps(data, ensure_ascii=False)
            row.save(force_insert=True)

        run, stages = self.carry_out()

        assert run.saved == run.records == 32
        sizes = [len(batch) for batch in stages[-1]]
        assert (sizes[:2], max(sizes), sum(sizes)) == ([3, 3], 10, 30)

    def test_record_that_is_larger_is_a_batch_of_its_own(self) -> None:
        unit = factories.store_row("unit")
        large = factories.store_row("lesson", unit=unit, title="x", other="y" * 2 * self.LIMIT)
        lessons = [factories.store_row("lesson", unit=unit) for _ in range(3)]

        run, stages = self.carry_out()

        assert run.saved == 5
        assert [large.id] in stages[1]
        assert {store_id for batch in stages[1] for store_id in batch} == {
            row.id for row in [large, *lessons]
        }

    def test_steps_share_a_batch_only_if_their_bytes_fit(self) -> None:
        unit = factories.store_row("unit", other="y" * 6_000)
        for _ in range(2):
            factories.store_row("lesson", unit=unit, other="y" * 2_500)

        _, stages = self.carry_out()

        assert [[len(batch) for batch in stage] for stage in stages] == [[1], [2]]

    def test_tree_is_handed_out_in_waves_of_as_many_bytes(self) -> None:
        # Given a chain of six units, of which two fit in a batch
        row = None
        for _ in range(6):
            row = factories.store_row("unit", **({} if row is None else {"parent": row}), other="y" * 4_500)

        run, stages = self.carry_out()

        assert run.saved == 6
        assert [[len(batch) for batch in stage] for stage in stages] == [[2], [2], [2]]

    def test_lengths_are_read_without_the_texts(self) -> None:
        factories.fill_store(20)

        with CaptureQueriesContext(connection) as queries:
            start(new_run().pk)

        reading = [query["sql"] for query in queries if "serialized" in query["sql"]]
        assert reading
        assert all(re.search(r"(octet_length|length\(CAST)\(?\S*serialized", sql) for sql in reading)
