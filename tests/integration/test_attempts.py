"""Attempts: their counting and limit, and lack of time or memory. Without worker processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.signals import pre_delete
from morango.models import Store

from morango_celery.errors import FatalError, InvalidMessageError, SoftTimeLimitReached
from morango_celery.models import Batch, Run
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.execution import Execution
from tests.integration.attempts import POISON, attempt, one_batch, used_up, work_off
from tests.support import factories
from tests.support.run_helpers import carry_out, dirty_ids, errors, new_run, unit
from worker.school.models import Learner, Lesson, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


def failing(error: type[BaseException]) -> Callable[..., None]:
    def code(*args: Any, **kwargs: Any) -> None:
        raise error

    return code


class TestCounting:
    def test_attempt_that_succeeds_is_the_only_one(self) -> None:
        factories.fill_store(20)
        batch = one_batch()

        execution = attempt(batch)

        assert execution.stage_is_done
        batch.refresh_from_db()
        assert (batch.state, batch.attempts, batch.saved) == (Batch.State.DONE, 1, 20)

    def test_message_that_is_refused_is_no_attempt(self) -> None:
        factories.fill_store(20)
        batch = one_batch()
        for times_before in (0, 3):
            Batch.objects.update(attempts=times_before)

            with pytest.raises(InvalidMessageError):
                attempt_batch(batch.pk, batch.ids_sha256[1:])

            batch.refresh_from_db()
            assert (batch.state, batch.attempts) == (Batch.State.OPEN, times_before)

    @pytest.mark.parametrize("state", [Run.State.CANCELLED, Run.State.FAILED])
    def test_batch_of_a_run_that_has_ended_is_not_split(self, state: Run.State) -> None:
        factories.fill_store(20)
        batch = used_up(one_batch())
        batch.run.move_to(state)

        assert attempt(batch) == Execution(batch.run_id, None, stage_is_done=False)
        assert Batch.objects.count() == 1

    @pytest.mark.parametrize("state", [Batch.State.DONE, Batch.State.SPLIT])
    def test_batch_is_closed_once(self, state: Batch.State) -> None:
        factories.fill_store(20)
        batch = one_batch()
        batch.close(state)
        batch.refresh_from_db()

        for other in (Batch.State.DONE, Batch.State.SPLIT):
            with pytest.raises(FatalError, match=f"is {state.value}; it can't become {other.value}"):
                batch.close(other)


def in_parsing(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "deserialize", code)


def in_validation(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "clean_fields", code)


def in_saving(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Learner, "save", code)


def in_saving_alone(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    calls: list[object] = []

    def save(*args: Any, **kwargs: Any) -> None:
        calls.append(None)
        if len(calls) > 1:
            code()
        raise ValueError("refused, so it is written alone")

    monkeypatch.setattr(Learner, "save", save)


def in_the_validation_of_a_tree(monkeypatch: pytest.MonkeyPatch, code: Callable[..., None]) -> None:
    monkeypatch.setattr(Unit, "cached_clean_fields", code)


@pytest.mark.parametrize("error", [MemoryError, SoftTimeLimitReached])
class TestTimeAndMemory:
    @pytest.mark.parametrize(
        "place", [in_parsing, in_validation, in_saving, in_saving_alone, in_the_validation_of_a_tree]
    )
    def test_lack_of_time_or_memory_blames_no_record(
        self, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], place: Callable[..., None]
    ) -> None:
        # Given a batch in whose midst time or memory runs out
        factories.store_row("learner", unit=unit(), username="one")
        waiting = dirty_ids()
        batch = one_batch()
        with monkeypatch.context() as patch:
            place(patch, failing(error))
            execution = attempt(batch)

        # Then nothing of it is done, and it is to be sent again
        assert execution == Execution(None, None, stage_is_done=False, batches_to_send=(batch.pk,))
        assert not Unit.objects.exists()
        assert (dirty_ids(), errors()) == (waiting, {})

        # ... in parts, and when there is enough again nothing is left of it
        run = work_off(batch.run)
        assert (run.saved, run.failed, run.pass_number) == (2, 0, 1)
        batch.refresh_from_db()
        assert (batch.state, batch.attempts) == (Batch.State.SPLIT, 1)

    def test_deletion_out_of_time_or_memory_is_undone_and_sent_again(
        self, error: type[BaseException]
    ) -> None:
        factories.store_row("lesson", unit=unit())
        work_off(one_batch().run)
        Store.objects.filter(model_name="lesson").update(dirty_bit=True, deleted=True)
        batch = one_batch()
        code = failing(error)
        pre_delete.connect(code, sender=Lesson)
        try:
            execution = attempt(batch)
        finally:
            pre_delete.disconnect(code, sender=Lesson)

        assert execution.batches_to_send == (batch.pk,)
        assert Lesson.objects.count() == 1
        assert work_off(batch.run).deleted == 1

    def test_record_that_stands_alone_is_told_why(
        self, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        # Given a learner who never gets through, and others
        home = unit()
        poison = factories.store_row("learner", unit=home, username="poison")
        good = [factories.store_row("learner", unit=home) for _ in range(30)]
        harmless = Learner.save

        def save(learner: Learner, *args: Any, **kwargs: Any) -> None:
            if learner.username == "poison":
                raise error
            harmless(learner, *args, **kwargs)

        monkeypatch.setattr(Learner, "save", save)
        run = work_off(one_batch().run)

        # Then it alone is in error: 32 -> 4 -> 1
        assert errors() == {poison.id: POISON}
        assert dirty_ids() == {poison.id}
        assert (run.records, run.saved, run.failed) == (32, 31, 1)
        assert Learner.objects.filter(pk__in=[row.id for row in good]).count() == 30
        poison.refresh_from_db()
        reason = "not enough memory" if error is MemoryError else "longer than the worker's time limit"
        assert reason in (poison.deserialization_error or "")
        attempted = sorted(Batch.objects.exclude(attempts=1).values_list("size", "attempts"))
        assert attempted == [(1, 3)]
        assert Batch.objects.filter(state=Batch.State.SPLIT).count() == 2


class TestGivingUp:
    def test_record_that_was_done_meanwhile_is_left_alone(self) -> None:
        row = unit()
        batch = used_up(one_batch())
        Store.objects.update(dirty_bit=False)

        execution = attempt(batch)

        assert execution.stage_is_done
        assert errors() == {}
        row.refresh_from_db()
        assert not row.dirty_bit
        assert Run.objects.get().failed == 0

    def test_descendants_of_a_poison_record_name_their_parent(self) -> None:
        root = unit()
        batch = used_up(one_batch())
        child = unit(root)

        assert attempt(batch).stage_is_done
        work_off(batch.run)
        carry_out(new_run(skip_erroring=True))

        assert errors() == {root.id: POISON, child.id: "morango.errors.MorangoMissingParent"}
