"""Records that fail for lack of others, and trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from morango.models import Store

from morango_celery.models import Batch, Run
from morango_celery.runs.batching import open_batches
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.producer import advance, start
from morango_celery.signals import first_pass_failed
from tests.support import factories
from tests.support.run_helpers import (
    MISSING,
    carry_out,
    dirty_ids,
    edited_unit,
    errors,
    learners_in_order,
    new_run,
    rename,
    unit,
)
from worker.school.models import Learner, Unit

Receiver = Callable[..., None]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class TestPasses:
    def test_record_that_came_too_early_is_tried_again(self, batch_size: Callable[[int], None]) -> None:
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

    def test_failure_that_no_other_record_can_repair_gets_no_second_pass(self) -> None:
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


class TestMending:
    """Repairs by a project for records that failed, before they are retried."""

    @pytest.fixture
    def on_failure(self) -> Iterator[Callable[[Receiver], None]]:
        """Yield a function that connects a receiver of the signal for failures of a run's first pass."""
        connected: list[Receiver] = []

        def connect(receive: Receiver) -> None:
            first_pass_failed.connect(receive, weak=False)
            connected.append(receive)

        yield connect
        for receive in connected:
            first_pass_failed.disconnect(receive)

    @pytest.fixture
    def claimants(self) -> tuple[str, str]:
        """Return the ids of a learner whose record claims the name of another, and of that one."""
        (claimant, _), (_, holder) = learners_in_order(2)
        rename(claimant, "name-1")
        Store.objects.filter(pk=holder.pk).update(dirty_bit=False)
        return claimant.id, holder.pk

    def test_record_that_a_receiver_repairs_is_saved_in_the_same_run(
        self, claimants: tuple[str, str], on_failure: Callable[[Receiver], None]
    ) -> None:
        claimant, holder = claimants
        heard = []

        def give_way(run: Run, **kwargs: Any) -> None:
            heard.append((run.pass_number, errors()))
            Learner.objects.filter(pk=holder).update(update_dirty_bit_to=True, username="gave way")

        on_failure(give_way)

        run, stages = carry_out()

        assert heard == [(1, {claimant: "django.db.utils.IntegrityError"})]
        assert stages == [[[claimant]], [[claimant]]]
        assert (run.pass_number, run.records, run.saved, run.failed) == (2, 1, 1, 0)
        assert Learner.objects.get(pk=claimant).username == "name-1"
        assert Learner.objects.get(pk=holder).username == "gave way"
        assert errors() == {}

    def test_receiver_is_asked_once_in_a_run(
        self, on_failure: Callable[[Receiver], None], batch_size: Callable[[int], None]
    ) -> None:
        # Given that each learner takes the next one's name, which takes a pass each
        batch_size(1)
        for number, (row, _) in enumerate(learners_in_order(4)):
            rename(row, f"name-{number + 1}")
        heard = []
        on_failure(lambda run, **kwargs: heard.append(run.pass_number))

        run, stages = carry_out()

        assert [len(stage) for stage in stages] == [4, 3, 2, 1]
        assert (run.failed, heard) == (0, [1])

    @pytest.mark.parametrize("fault", ["nothing failed", "no other record can mend it"])
    def test_receiver_is_not_asked_when_nothing_is_tried_again(
        self, fault: str, on_failure: Callable[[Receiver], None]
    ) -> None:
        title = None if fault == "no other record can mend it" else "sound"
        factories.store_row("lesson", unit=factories.store_row("unit"), title=title)
        heard = []
        on_failure(lambda run, **kwargs: heard.append(run))

        run, _ = carry_out()

        assert (run.failed, heard) == (0 if title else 1, [])

    def test_receivers_writes_are_committed_with_the_pass_or_not_at_all(
        self, claimants: tuple[str, str], on_failure: Callable[[Receiver], None]
    ) -> None:
        # Given a worker that dies after the receiver has written, before the next pass is handed out
        _, holder = claimants
        deaths = [RuntimeError("died")]

        def give_way(run: Run, **kwargs: Any) -> None:
            current = Learner.objects.get(pk=holder)
            Learner.objects.filter(pk=holder).update(
                update_dirty_bit_to=True, username=f"{current.username}, gave way"
            )
            if deaths:
                raise deaths.pop()

        on_failure(give_way)
        run = start(new_run().pk).run
        (batch,) = open_batches(run)
        execute_batch(batch.pk)
        with pytest.raises(RuntimeError, match="died"):
            advance(run.pk)
        assert Learner.objects.get(pk=holder).username == "name-1"

        # When another one goes on
        progress = advance(run.pk)

        # Then it was done once
        assert (progress.opened, progress.run.pass_number) == (True, 2)
        assert Learner.objects.get(pk=holder).username == "name-1, gave way"

    def test_receivers_error_fails_the_run(
        self, claimants: tuple[str, str], on_failure: Callable[[Receiver], None]
    ) -> None:
        def fail(run: Run, **kwargs: Any) -> None:
            raise RuntimeError("no way to mend it")

        on_failure(fail)

        with pytest.raises(RuntimeError, match="no way to mend it"):
            run_in_process(new_run(in_process=True))

        run = Run.objects.get()
        assert (run.state, run.error) == (Run.State.FAILED, "RuntimeError: no way to mend it")


DIRTY_PARENT = "morango.errors.MorangoDirtyParent"
MISSING_PARENT = "morango.errors.MorangoMissingParent"


@pytest.mark.parametrize("size", [1000, 4, 1])
class TestTrees:
    @pytest.fixture(autouse=True)
    def _size(self, batch_size: Callable[[int], None], size: int) -> None:
        batch_size(size)

    def test_chain_fills_batches_with_several_generations(self, size: int) -> None:
        chain = [unit()]
        for _ in range(29):
            chain.append(unit(chain[-1]))

        run, stages = carry_out()

        assert (run.records, run.saved, run.failed, run.pass_number) == (30, 30, 0, 1)
        parents = dict(Unit.objects.values_list("id", "parent_id"))
        assert parents == {row.id: row._self_ref_fk or None for row in chain}
        if size == 4:  # as many generations as fit share a batch
            assert [len(batch) for stage in stages for batch in stage] == [4] * 7 + [2]

    def test_wide_tree_takes_a_stage_per_generation(self, size: int) -> None:
        root = unit()
        children = [unit(root) for _ in range(20)]
        for child in children:
            unit(child)

        run, stages = carry_out()

        assert (run.records, run.saved, run.failed, run.pass_number) == (41, 41, 0, 1)
        assert Unit.objects.filter(parent=root.id).count() == 20
        if size == 4:  # generations side by side, not one batch after another
            assert len(stages) == 3

    def test_orphans_and_their_descendants_fail_alone(self, size: int) -> None:
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

    def test_cycles_and_records_below_them_fail_alone(self, size: int) -> None:
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

    def test_deleted_records_of_a_tree_are_handed_out_once(self, size: int) -> None:
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

    def test_deleted_leaf_beside_a_chain_is_handed_out_once(self, size: int) -> None:
        root = unit()
        deleted = unit(root, deleted=True)
        chain = [root]
        for _ in range(4):
            chain.append(unit(chain[-1]))

        run, stages = carry_out()

        handed_out = [store_id for stage in stages for batch in stage for store_id in batch]
        assert sorted(handed_out) == sorted(row.id for row in [*chain, deleted])
        assert (run.records, run.saved, run.deleted) == (6, 5, 1)

    def test_edited_child_is_left_to_the_merge_and_its_children_are_saved(self, size: int) -> None:
        root = unit()
        edited = unit(root)
        edited_unit(edited, "made here", parent_id=None)
        below = unit(edited)
        chain = [root]
        for _ in range(5):
            chain.append(unit(chain[-1]))

        run, _ = carry_out()

        assert (run.records, run.saved, run.conflicted, run.failed) == (8, 7, 1, 0)
        assert dirty_ids() == {edited.id}
        assert Unit.objects.get(pk=below.id).parent_id == edited.id


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
    assert counts == {"saved": 10, "deleted": 2, "propagated": 1, "conflicted": 1, "failed": 3}
    assert run.records == run.done == 17
    assert len(dirty_ids()) == run.failed + run.conflicted

    # ... and what a batch handed out is what came of it
    for batch in Batch.objects.all():
        assert batch.size == sum(getattr(batch, name) for name in Run.COUNTS)
        assert (batch.state, batch.ids_json) == (Batch.State.DONE, "")
