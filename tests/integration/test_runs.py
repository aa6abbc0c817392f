"""The durable life of a run: stages, batches, passes, and what doubled or lost messages do to them."""

from __future__ import annotations

import datetime
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from morango.constants import transfer_stages, transfer_statuses
from morango.models import Store, SyncSession, TransferSession
from redis import Redis

from morango_celery import tasks
from morango_celery.errors import FatalError, RefusedMessageError
from morango_celery.models import Batch, Run
from morango_celery.runs import handover
from morango_celery.runs.execute import execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.plan import Step, steps
from morango_celery.runs.producer import advance, create_run, open_batches, start
from morango_celery.runs.recovery import recover
from morango_celery.upstream import serialize_into_store
from tests import factories
from worker.school.models import PROFILE, Attempt, Feedback, Learner, Lesson, Unit

pytestmark = pytest.mark.django_db

MISSING = "ab" * 16
Stages = list[list[list[str]]]
"""The ids handed out: by stage, then by batch."""


@pytest.fixture(autouse=True)
def _serializable_in_a_transaction(settings: Any) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True  # Morango sets no isolation level then


@pytest.fixture
def batch_size(settings: Any) -> Callable[[int], None]:
    def change(size: int) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "BATCH_SIZE_RECORDS": size}

    return change


def new_run(**options: Any) -> Run:
    return create_run(PROFILE, None, **{"serialize_first": False, "handed_over": True, **options})


def carry_out(run: Run | None = None) -> tuple[Run, Stages]:
    """Carry a run out as workers do, message by message, and say what was handed out."""
    progress = start((run or new_run()).pk)
    stages: Stages = []
    while not progress.ended:
        batches = list(open_batches(progress.run))
        stages.append([batch.store_ids for batch in batches])
        done = [execute_batch(batch.pk, batch.store_ids).stage_is_done for batch in batches]
        assert done == [False] * (len(done) - 1) + [True]  # the last one opens the next stage
        progress = advance(progress.run.pk)
        assert progress.opened is not progress.ended
    handover.finish(progress.run)
    return progress.run, stages


def everything() -> tuple[Any, ...]:
    """All that deserializing may change."""
    ledger = ("pk", "state", "error", "step", "stage", "pass_number", "open_batches", *Run.COUNTS)
    return (
        factories.app_rows(),
        list(Store.objects.order_by("id").values()),
        list(Run.objects.values_list(*ledger)),
        list(Batch.objects.order_by("pk").values_list("pk", "state", "payload", *Run.COUNTS)),
    )


def errors() -> dict[str, str | None]:
    failed = Store.objects.exclude(deserialization_exception=None)
    return dict(failed.values_list("id", "deserialization_exception"))


def dirty_ids() -> set[str]:
    return set(Store.objects.filter(dirty_bit=True).values_list("id", flat=True))


class TestPlan:
    def test_steps_follow_the_models_dependencies(self) -> None:
        unit, people, attempt, feedback, unregistered = steps(PROFILE)

        assert unit == Step((Unit,), is_tree=True)
        assert set(people.models) == {Learner, Lesson}
        assert (attempt, feedback) == (Step((Attempt,)), Step((Feedback,)))
        assert unregistered == Step((), unregistered=True)

    @pytest.mark.parametrize("size", [100, 1000])
    def test_a_run_that_fits_is_one_batch(self, batch_size: Callable[[int], None], size: int) -> None:
        batch_size(size)
        sent = factories.fill_store(100)

        run, stages = carry_out()

        assert [len(batch) for stage in stages for batch in stage] == [100]
        assert (run.stage, run.saved, run.failed) == (1, 100, 0)
        assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent

    def test_a_run_without_records_has_no_stage(self) -> None:
        factories.fill_store(10, dirty=False)

        run, stages = carry_out()

        assert (run.state, run.stage, run.records, stages) == (Run.State.COMPLETED, 0, 0, [])
        assert not Batch.objects.exists()

    @pytest.mark.parametrize("size", [1, 7, 40, 150])
    def test_a_large_run_has_stages_that_respect_foreign_keys(
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


KEYS = {"parent_id", "unit_id", "learner_id", "lesson_id", "attempt_id"}


class TestBatches:
    def test_executing_a_batch_twice_changes_nothing(self, batch_size: Callable[[int], None]) -> None:
        # Given the first of several batches, done; one of its records is in error
        batch_size(10)
        factories.fill_store(100)
        factories.store_row("unit", name=None, partition="0")
        run = start(new_run().pk).run
        batch, *_ = open_batches(run)
        first = execute_batch(batch.pk, batch.store_ids)
        assert first.result is not None
        before = everything()

        # When its message comes again, or the ledger is asked again
        again = [execute_batch(batch.pk, batch.store_ids), execute_batch(batch.pk)]

        # Then nothing happens
        assert [execution.result for execution in again] == [None, None]
        assert everything() == before

    def test_a_doubled_message_opens_the_stage_that_its_first_worker_did_not(self) -> None:
        # Given a worker that died between the commit of the last batch and the next stage
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        assert execute_batch(batch.pk, batch.store_ids).stage_is_done

        # When the message comes again
        again = execute_batch(batch.pk, batch.store_ids)

        # Then it is this one's turn, until the run has ended
        assert again.stage_is_done
        assert advance(run.pk).ended
        assert not execute_batch(batch.pk, batch.store_ids).stage_is_done

    @pytest.mark.parametrize(
        "change",
        [
            lambda ids: ids[:-1],
            lambda ids: [*ids, MISSING],
            lambda ids: ids[::-1],
            lambda ids: [],
            lambda ids: list(range(len(ids))),
            lambda ids: [{"id": store_id} for store_id in ids],
        ],
        ids=["one less", "one more", "another order", "none", "numbers", "objects"],
    )
    def test_ids_that_are_not_the_batchs_are_refused(self, change: Callable[[list[str]], Any]) -> None:
        factories.fill_store(10)
        (batch,) = open_batches(start(new_run().pk).run)
        before = everything()

        with pytest.raises(RefusedMessageError, match=r"ids are not those of batch 1/1 .*recover_runs"):
            execute_batch(batch.pk, change(batch.store_ids))

        assert everything() == before

    def test_a_message_of_a_deleted_run_does_nothing(self) -> None:
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        Run.objects.all().delete()

        execution = execute_batch(batch.pk, batch.store_ids)

        assert (execution.run_id, execution.result, execution.stage_is_done) == (None, None, False)
        assert tasks.deserialize_batch(batch.pk, batch.store_ids) == {}
        assert len(dirty_ids()) == 10
        with pytest.raises(Run.DoesNotExist):
            advance(run.pk)

    @pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.COMPLETED])
    def test_a_message_of_a_run_that_has_ended_does_nothing(self, state: Run.State) -> None:
        factories.fill_store(10)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        run.move_to(state, error="by hand")
        before = everything()

        execution = execute_batch(batch.pk, batch.store_ids)
        progress = [start(run.pk), advance(run.pk)]

        assert (execution.result, execution.stage_is_done) == (None, False)
        assert not any(p.opened or p.ended for p in progress)
        assert everything() == before

    def test_starting_a_run_twice_opens_one_stage(self) -> None:
        factories.fill_store(10)
        run = new_run()

        progress = [start(run.pk), start(run.pk), advance(run.pk)]

        assert [p.opened for p in progress] == [True, False, False]
        assert Batch.objects.count() == 1

    @pytest.mark.parametrize(
        ("state", "target"),
        [
            (Run.State.PENDING, Run.State.COMPLETED),
            (Run.State.RUNNING, Run.State.PENDING),
            (Run.State.COMPLETED, Run.State.RUNNING),
            (Run.State.COMPLETED, Run.State.FAILED),
            (Run.State.FAILED, Run.State.RUNNING),
        ],
    )
    def test_a_run_makes_no_move_that_the_ledger_does_not_know(
        self, state: Run.State, target: Run.State
    ) -> None:
        run = new_run(state=state)

        with pytest.raises(
            FatalError, match=f"Run {run.pk} is {state.value}; it can't become {target.value}"
        ):
            run.move_to(target)

        run.refresh_from_db()
        assert run.state == state


@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    """Workers as threads, each with a connection of its own."""

    THREADS = 6

    def together(self, calls: list[Callable[[], Any]]) -> list[Any]:
        barrier = threading.Barrier(len(calls))

        def one(call: Callable[[], Any]) -> Any:
            try:
                barrier.wait(20)
                return call()
            finally:
                connection.close()

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(one, calls))

    def test_exactly_one_batch_opens_the_next_stage(self, batch_size: Callable[[int], None]) -> None:
        # Given stages of several batches
        batch_size(20)
        sent = factories.fill_store(240)
        progress = start(new_run().pk)

        def work(batch: Batch) -> bool:
            execution = execute_batch(batch.pk, batch.store_ids)
            return execution.stage_is_done and advance(batch.run_id).opened

        # When each stage's batches are worked off at the same time, by whoever opens the next one
        openers = []
        while batches := list(open_batches(progress.run)):
            openers.append(sum(self.together([partial(work, batch) for batch in batches])))

        # Then each stage but the last was followed by one, opened once
        run = Run.objects.get()
        assert (run.state, run.stage, run.open_batches) == (Run.State.COMPLETED, len(openers), 0)
        assert openers == [1] * (len(openers) - 1) + [0]
        assert len(openers) > 2
        assert (run.saved, run.records) == (240, 240)
        assert {name: len(rows) for name, rows in factories.app_rows().items()} == sent

    def test_of_many_that_advance_a_run_one_does(self, batch_size: Callable[[int], None]) -> None:
        batch_size(20)
        factories.fill_store(60)
        run = new_run()

        opened = self.together([lambda: start(run.pk).opened] * self.THREADS)
        for batch in open_batches(run):
            execute_batch(batch.pk)
        opened_again = self.together([lambda: advance(run.pk).opened] * self.THREADS)

        assert sorted(opened) == sorted(opened_again) == [False] * (self.THREADS - 1) + [True]

    def test_a_message_that_comes_twice_at_once_is_executed_once(self) -> None:
        factories.fill_store(60)
        (batch,) = open_batches(start(new_run().pk).run)

        done = self.together([lambda: execute_batch(batch.pk, batch.store_ids)] * self.THREADS)

        assert len([execution for execution in done if execution.result is not None]) == 1
        run = Run.objects.get()
        assert (run.saved, run.open_batches) == (60, 0)


def learners_in_order(number: int, **columns: Any) -> list[tuple[Store, Learner]]:
    """So many learners with Store and app rows, in the order in which they are handed out."""
    unit = factories.store_row("unit", dirty=False)
    Unit.deserialize(json.loads(unit.serialized)).save(update_dirty_bit_to=False)
    rows = sorted(
        (factories.build_store_row("learner", unit=unit, username=f"old-{n}") for n in range(number)),
        key=lambda row: str(row.partition),
    )
    pairs = []
    for n, row in enumerate(rows):
        data = {**json.loads(row.serialized), "username": f"name-{n}"}
        learner = Learner.deserialize(data)
        learner.save(update_dirty_bit_to=False)
        row.serialized = json.dumps(data)
        row.save(force_insert=True)
        pairs.append((row, learner))
    return pairs


def rename(row: Store, username: str) -> None:
    row.serialized = json.dumps({**json.loads(row.serialized), "username": username})
    row.save()


class TestPasses:
    def test_a_record_that_came_too_early_is_tried_again(self, batch_size: Callable[[int], None]) -> None:
        # Given that the first learner takes the name which the second one gives up
        batch_size(1)
        (first, _), (second, _) = learners_in_order(2)
        rename(first, "name-1")
        rename(second, "new")

        run, stages = carry_out()

        # Then both are saved, the first one in the second pass
        assert stages == [[[first.id], [second.id]], [[first.id]]]
        assert Learner.objects.get(pk=first.id).username == "name-1"
        assert Learner.objects.get(pk=second.id).username == "new"
        assert (run.pass_number, run.records, run.saved, run.failed) == (2, 2, 2, 0)
        assert dirty_ids() == set()
        assert errors() == {}

    def test_passes_go_on_while_they_get_any_further(self, batch_size: Callable[[int], None]) -> None:
        # Given that each learner takes the next one's name: only the last can do so at once
        batch_size(1)
        pairs = learners_in_order(5)
        for number, (row, _) in enumerate(pairs):
            rename(row, f"name-{number + 1}")

        run, stages = carry_out()

        assert [len(stage) for stage in stages] == [5, 4, 3, 2, 1]
        assert (run.pass_number, run.records, run.saved, run.failed) == (5, 5, 5, 0)
        assert [Learner.objects.get(pk=row.id).username for row, _ in pairs] == [
            f"name-{number + 1}" for number in range(5)
        ]

    @pytest.mark.parametrize("size", [1, 1000])
    def test_passes_end_when_they_get_no_further(self, batch_size: Callable[[int], None], size: int) -> None:
        # Given two learners who want a name that nobody gives up, and one who wants a free one
        batch_size(size)
        pairs = learners_in_order(4)
        Learner.objects.filter(pk=pairs[3][1].pk).update(update_dirty_bit_to=False, username="taken")
        Store.objects.filter(pk=pairs[3][0].pk).update(dirty_bit=False)
        for row, _ in pairs[:2]:
            rename(row, "taken")
        rename(pairs[2][0], "free")

        run, stages = carry_out()

        # Then the second pass is the last, and they are in error
        failed = {row.id for row, _ in pairs[:2]}
        assert (run.state, run.pass_number, len(stages)) == (Run.State.COMPLETED, 2, 2)
        assert (run.records, run.saved, run.failed) == (3, 1, 2)
        assert errors() == dict.fromkeys(failed, "django.db.utils.IntegrityError")
        assert dirty_ids() == failed

    def test_what_no_other_record_can_mend_gets_no_second_pass(self) -> None:
        invalid = factories.store_row("lesson", unit=factories.store_row("unit"), title=None)

        run, stages = carry_out()

        assert (run.pass_number, len(stages), run.failed) == (1, 1, 1)
        assert errors() == {invalid.id: "django.core.exceptions.ValidationError"}

    @pytest.mark.parametrize("skip_erroring", [False, True])
    def test_errors_of_earlier_runs_are_tried_again_unless_they_are_skipped(
        self, skip_erroring: bool
    ) -> None:
        # Given a record in error that would do by now
        earlier = {"deserialization_error": "It was bad.", "deserialization_exception": "some.Error"}
        row = factories.store_row("unit", columns=earlier)

        run, _ = carry_out(new_run(skip_erroring=skip_erroring))

        assert (run.records, run.saved) == ((0, 0) if skip_erroring else (1, 1))
        assert Unit.objects.filter(pk=row.id).exists() is not skip_erroring
        assert errors() == ({row.id: "some.Error"} if skip_erroring else {})


def unit(parent: Store | None = None, **options: Any) -> Store:
    return factories.store_row("unit", **({"parent": parent} if parent is not None else {}), **options)


DIRTY_PARENT = "morango.errors.MorangoDirtyParent"
MISSING_PARENT = "morango.errors.MorangoMissingParent"


@pytest.mark.parametrize("size", [1000, 4, 1])
class TestTrees:
    @pytest.fixture(autouse=True)
    def _size(self, batch_size: Callable[[int], None], size: int) -> None:
        batch_size(size)

    def test_a_chain(self, size: int) -> None:
        chain = [unit()]
        for _ in range(29):
            chain.append(unit(chain[-1]))

        run, stages = carry_out()

        assert (run.records, run.saved, run.failed, run.pass_number) == (30, 30, 0, 1)
        parents = dict(Unit.objects.values_list("id", "parent_id"))
        assert parents == {row.id: row._self_ref_fk or None for row in chain}
        if size == 4:  # as many generations as fit share a batch
            assert [len(batch) for stage in stages for batch in stage] == [4] * 7 + [2]

    def test_a_wide_tree(self, size: int) -> None:
        root = unit()
        children = [unit(root) for _ in range(20)]
        for child in children:
            unit(child)

        run, stages = carry_out()

        assert (run.records, run.saved, run.failed, run.pass_number) == (41, 41, 0, 1)
        assert Unit.objects.filter(parent=root.id).count() == 20
        if size == 4:  # generations side by side, not one batch after another
            assert len(stages) == 3

    def test_orphans_and_their_children(self, size: int) -> None:
        orphan = unit(parent_id=MISSING)
        child = unit(orphan)
        grandchild = unit(child)
        good = [unit() for _ in range(5)]

        run, _ = carry_out()

        assert (run.records, run.saved, run.failed) == (8, 5, 3)
        assert errors() == {
            orphan.id: MISSING_PARENT,
            child.id: DIRTY_PARENT,
            grandchild.id: DIRTY_PARENT,
        }
        assert set(Unit.objects.values_list("id", flat=True)) == {row.id for row in good}

    def test_cycles_and_what_hangs_on_them(self, size: int) -> None:
        one, other = "1a" * 16, "2b" * 16
        cycle = [unit(id=one, parent_id=other), unit(id=other, parent_id=one)]
        own_parent = unit(id="3c" * 16, parent_id="3c" * 16)
        below = unit(cycle[0])
        root = unit()
        good = [root, *(unit(root) for _ in range(5))]

        run, _ = carry_out()

        assert (run.records, run.saved, run.failed) == (10, 6, 4)
        assert errors() == dict.fromkeys([one, other, own_parent.id, below.id], DIRTY_PARENT)
        assert set(Unit.objects.values_list("id", flat=True)) == {row.id for row in good}

    def test_deleted_records_in_a_tree(self, size: int) -> None:
        root = unit()
        deleted = unit(root, deleted=True)
        below_deleted = unit(deleted, deleted=True)
        good = [root, *(unit(root) for _ in range(4))]
        good.append(unit(good[-1]))

        run, stages = carry_out()

        assert sorted(i for stage in stages for batch in stage for i in batch) == sorted(
            row.id for row in [*good, deleted, below_deleted]
        )
        assert (run.records, run.saved, run.deleted, run.failed) == (8, 6, 2, 0)
        assert set(Unit.objects.values_list("id", flat=True)) == {row.id for row in good}

    def test_a_deleted_leaf_beside_a_chain(self, size: int) -> None:
        root = unit()
        deleted = unit(root, deleted=True)
        chain = [root]
        for _ in range(4):
            chain.append(unit(chain[-1]))

        run, stages = carry_out()

        handed_out = [store_id for stage in stages for batch in stage for store_id in batch]
        assert sorted(handed_out) == sorted(row.id for row in [*chain, deleted])
        assert (run.records, run.saved, run.deleted) == (6, 5, 1)

    def test_a_child_that_was_edited_here(self, size: int) -> None:
        root = unit()
        edited = unit(root)
        edited_unit(edited, "made here", parent_id=None)
        below = unit(edited)
        chain = [root]
        for _ in range(5):
            chain.append(unit(chain[-1]))

        run, _ = carry_out()

        assert (run.records, run.saved, run.yielded, run.failed) == (8, 7, 1, 0)
        assert dirty_ids() == {edited.id}
        assert Unit.objects.get(pk=below.id).parent_id == edited.id


def edited_unit(row: Store, name: str, **values: Any) -> None:
    """The row's app row with a local edit."""
    data = {**json.loads(row.serialized), "name": name, **values}
    local = Unit.deserialize(data)
    local._morango_source_id, local._morango_partition = row.source_id, row.partition
    local.save(update_dirty_bit_to=True)


@pytest.mark.parametrize("size", [1000, 3, 1])
def test_counters_add_up(batch_size: Callable[[int], None], size: int) -> None:
    # Given records of every fate
    batch_size(size)
    root = unit()
    for _ in range(3):
        factories.store_row("lesson", unit=unit(root))
    edited = unit()
    edited_unit(edited, "made here")
    unit(edited)
    unit(deleted=True)
    gone = unit(hard_deleted=True)
    factories.store_row("lesson", unit=gone)
    factories.store_row("lesson", unit_id=MISSING)
    factories.store_row("spaceship", partition="5c")
    (early, _), (late, _), (other, _) = learners_in_order(3)
    rename(early, "name-1")  # has to wait for the one that has it
    rename(late, "new")
    rename(other, "name-2")
    Store.objects.filter(pk=other.pk).update(dirty_bit=False)
    factories.store_row("learner", unit=root, username="name-2")  # waits in vain

    run, _ = carry_out()

    # Then each counts once, whatever stages and passes it took
    counts = {name: getattr(run, name) for name in Run.COUNTS}
    assert counts == {"saved": 10, "deleted": 2, "spread": 1, "yielded": 1, "failed": 3}
    assert run.records == run.done == 17
    assert len(dirty_ids()) == run.failed + run.yielded

    # ... and what a batch handed out is what came of it
    for batch in Batch.objects.all():
        assert batch.size == sum(getattr(batch, name) for name in Run.COUNTS)
        assert (batch.state, batch.payload) == (Batch.State.DONE, "")


class TestLocalEdits:
    def test_a_local_edit_is_not_overwritten(self) -> None:
        # Given a record whose app row was edited here after the last serialization
        row = unit(name="from afar")
        edited_unit(row, "made here")

        run, _ = carry_out()

        # Then the app row is as it was, and the Store row waits, without an error
        local = Unit.objects.get()
        assert (local.name, local._morango_dirty_bit) == ("made here", True)
        assert (run.yielded, run.saved, run.failed) == (1, 0, 0)
        assert dirty_ids() == {row.id}
        assert errors() == {}

        # When it is serialized next, then Morango merges the two, and the local one wins
        serialize_into_store(PROFILE, None)
        row.refresh_from_db()
        local.refresh_from_db()
        assert json.loads(row.serialized)["name"] == "made here"
        assert "from afar" in row.conflicting_serialized_data
        assert (row.dirty_bit, local._morango_dirty_bit) == (False, False)

    def test_an_edit_made_during_the_run_is_merged_at_its_end(self) -> None:
        # Given a run that has handed out a record
        row = unit(name="from afar")
        run = start(new_run(serialize_first=True).pk).run
        (batch,) = open_batches(run)

        # When its app row is edited before the batch is executed
        edited_unit(row, "made here")
        execute_batch(batch.pk, batch.store_ids)
        progress = advance(run.pk)
        assert progress.ended
        handover.finish(progress.run)

        # Then the edit has won, and is in the Store
        row.refresh_from_db()
        assert Unit.objects.get().name == "made here"
        assert json.loads(row.serialized)["name"] == "made here"
        assert not row.dirty_bit

    def test_edits_made_before_the_run_are_merged_first(self) -> None:
        row = unit(name="from afar")
        edited_unit(row, "made here")

        run = run_in_process(new_run(serialize_first=True))

        row.refresh_from_db()
        assert json.loads(row.serialized)["name"] == "made here"
        assert run.yielded == 0


class Recorded:
    """A dispatcher that sends nothing."""

    def __init__(self, *, broker_is_there: bool = True) -> None:
        self.broker_is_there = broker_is_there
        self.sent: Counter[str] = Counter()

    def start(self, run: Run) -> bool:
        self.sent[f"run {run.pk}"] += 1
        return self.broker_is_there

    def batch(self, batch: Batch) -> bool:
        self.sent[f"batch {batch.pk}"] += 1
        return self.broker_is_there


def ago(seconds: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(seconds=seconds)


class TestRecovery:
    def sent(self, **options: Any) -> set[str]:
        dispatch = Recorded()
        count = recover(dispatch, **options)
        assert count == len(dispatch.sent) == sum(dispatch.sent.values())
        return set(dispatch.sent)

    @pytest.fixture
    def two_batches(self, batch_size: Callable[[int], None]) -> list[Batch]:
        batch_size(1)
        unit()
        unit()
        run = new_run(sent_at=ago(5000))
        return list(open_batches(start(run.pk).run))

    def test_a_run_that_was_never_sent(self) -> None:
        run = new_run(sent_at=None)

        assert self.sent() == {f"run {run.pk}"}

    def test_a_run_is_sent_again_only_after_a_while(self, settings: Any) -> None:
        settings.MORANGO_CELERY = {"RESEND_AFTER_SECONDS": 100}
        late = new_run(sent_at=ago(101))
        fresh = new_run(sent_at=ago(50))

        assert self.sent() == {f"run {late.pk}"}
        assert self.sent(everything=True) == {f"run {late.pk}", f"run {fresh.pk}"}

    def test_a_run_that_nobody_led_from_one_stage_to_the_next(self, two_batches: list[Batch]) -> None:
        for batch in two_batches:
            execute_batch(batch.pk)

        assert self.sent() == {f"run {two_batches[0].run_id}"}

    def test_only_open_batches_that_are_overdue(self, two_batches: list[Batch]) -> None:
        done, late = two_batches
        execute_batch(done.pk)
        Batch.objects.update(sent_at=timezone.now())
        assert self.sent() == set()

        Batch.objects.update(sent_at=ago(5000))
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(sent_at=None)
        assert self.sent() == {f"batch {late.pk}"}

        Batch.objects.update(sent_at=timezone.now())
        assert self.sent(everything=True) == {f"batch {late.pk}"}

    def test_batches_whose_opener_died_before_it_sent_them(self, two_batches: list[Batch]) -> None:
        assert self.sent() == {f"batch {batch.pk}" for batch in two_batches}

    def test_nothing_of_a_run_in_process(self, two_batches: list[Batch]) -> None:
        new_run(in_process=True)
        Run.objects.update(in_process=True)

        assert self.sent(everything=True) == set()

    @pytest.mark.parametrize("state", [Run.State.FAILED, Run.State.COMPLETED])
    def test_nothing_of_a_run_that_has_ended(self, two_batches: list[Batch], state: Run.State) -> None:
        two_batches[0].run.move_to(state)
        Batch.objects.update(sent_at=None)

        assert self.sent(everything=True) == set()

    def test_what_the_broker_did_not_take_is_not_counted(self, two_batches: list[Batch]) -> None:
        Batch.objects.update(sent_at=None)

        assert recover(Recorded(broker_is_there=False)) == 0

    def test_nothing_is_sent_twice(self, redis_url: str, two_batches: list[Batch]) -> None:
        # Given a pending run and two open batches that were never sent, and a real broker
        pending = new_run(sent_at=None)
        Batch.objects.update(sent_at=None)

        # When recovery runs again and again
        counts = [recover(tasks.CeleryDispatch()) for _ in range(3)]

        # Then it has sent each of them once
        assert counts == [3, 0, 0]
        with Redis.from_url(redis_url) as client:
            assert client.llen("celery") == 3
        pending.refresh_from_db()
        assert pending.sent_at is not None

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (Run.State.COMPLETED, transfer_statuses.COMPLETED),
            (Run.State.FAILED, transfer_statuses.ERRORED),
        ],
    )
    def test_a_session_that_was_not_told_is_told(self, state: Run.State, outcome: str) -> None:
        # Given a run that has ended, by a worker that died before it told the transfer session
        session = waiting_session(transfer_statuses.STARTED)
        run = new_run(transfer_session_id=session.id, handed_over=False, state=state)

        assert self.sent() == set()

        session.refresh_from_db()
        run.refresh_from_db()
        assert (session.transfer_stage_status, run.handed_over) == (outcome, True)

    def test_a_session_that_is_not_ready_yet_is_told_later(self) -> None:
        # Given that Morango has not written STARTED yet
        session = waiting_session(transfer_statuses.PENDING)
        run = new_run(transfer_session_id=session.id, handed_over=False, state=Run.State.COMPLETED)

        recover(Recorded())
        run.refresh_from_db()
        session.refresh_from_db()
        assert (session.transfer_stage_status, run.handed_over) == (transfer_statuses.PENDING, False)

        # When it has, then the next recovery tells it
        TransferSession.objects.update(transfer_stage_status=transfer_statuses.STARTED)
        recover(Recorded())
        session.refresh_from_db()
        assert session.transfer_stage_status == transfer_statuses.COMPLETED


def waiting_session(status: str) -> TransferSession:
    now = timezone.now()
    sync_session = SyncSession.objects.create(
        id=uuid.uuid4().hex, profile=PROFILE, start_timestamp=now, last_activity_timestamp=now
    )
    return TransferSession.objects.create(
        id=uuid.uuid4().hex,
        sync_session=sync_session,
        push=True,
        filter=factories.SCHOOL_ID,
        start_timestamp=now,
        last_activity_timestamp=now,
        transfer_stage=transfer_stages.DESERIALIZING,
        transfer_stage_status=status,
    )
