"""Batches of exclusive models: one after another in a run, never two at a time, and beside all others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from morango.models import Store
from morango.models.certificates import Filter

from morango_celery.deserialization import deserialize_batch
from morango_celery.deserialization.model_code import ModelCodeGuard, UpdatesOtherRows, updates
from morango_celery.models import Batch, Run
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.exclusive import postpone
from morango_celery.runs.execution import Execution, execute_batch
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.overdue import note_sent
from morango_celery.runs.plan import steps
from morango_celery.runs.producer import advance, create_run, start
from morango_celery.runs.recovery import recover
from tests.neighbours.models import PROFILE, Branch, Memo, Place, Tally, Vote
from tests.neighbours.rows import build_row, build_tree
from tests.support.run_helpers import RecordingDispatcher
from tests.support.waiting import held, held_rows, sessions_that_wait_for_a_lock, until

pytestmark = pytest.mark.usefixtures("serializable_in_a_transaction")


@pytest.fixture
def votes_are_exclusive(settings: Any) -> None:
    settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "EXCLUSIVE_MODELS": ["neighbours.Vote"]}


def new_run(sync_filter: str | None = None, **options: Any) -> Run:
    options = {"serialize_first": False, "session_notified": True, **options}
    return create_run(PROFILE, None if sync_filter is None else Filter(sync_filter), **options)


def store(*rows: Store) -> list[str]:
    Store.objects.bulk_create(rows)
    return [row.id for row in rows]


def rows_of(model_name: str, number: int, **arguments: Any) -> list[Store]:
    return [build_row(model_name, name=f"{model_name} {n}", **arguments) for n in range(number)]


def votes() -> int:
    return sum(Tally.objects.values_list("votes", flat=True))


@pytest.mark.django_db
class TestPlanning:
    """Plans with exclusive models: common batches, and batches that wait."""

    def test_exclusive_models_have_batches_of_their_own(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(5)
        store(*rows_of("memo", 7), *rows_of("vote", 12))

        run = start(new_run().pk).run

        batches = Batch.objects.filter(run=run).order_by("number")
        assert [(batch.split_from, batch.offset, batch.size) for batch in batches] == [
            *((Batch.EXCLUSIVE, place, size) for place, size in ((0, 5), (5, 5), (10, 2))),
            *((None, 0, size) for size in (5, 2)),
        ]
        assert (run.stage, run.open_batches, run.stage_batches, run.records) == (1, 5, 5, 19)

    def test_exclusive_models_of_a_small_run_have_batches_of_their_own(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(100)
        store(*rows_of("place", 1), *rows_of("memo", 2), *rows_of("vote", 3))

        run = start(new_run().pk).run
        stages = []
        while not run.has_ended:
            batches = list(open_batches(run))
            stages.append([(batch.size, batch.split_from) for batch in batches])
            for batch in batches:
                execute_batch(batch.pk)
            run = advance(run.pk).run

        assert sorted(stages) == [[(1, None)], [(3, Batch.EXCLUSIVE), (2, None)]]
        assert votes() == 3

    def test_consecutive_models_share_a_batch_without_exclusive_ones(self) -> None:
        store(*rows_of("place", 1), *rows_of("memo", 2), *rows_of("vote", 3))
        (batch,) = open_batches(start(new_run().pk).run)
        assert batch.size == 6

    def test_plan_has_the_same_steps_whatever_is_exclusive(self, settings: Any) -> None:
        """A run's step is a number, and a worker may have found out more than another."""
        before = [step.models for step in steps(PROFILE)]
        settings.MORANGO_CELERY = {"EXCLUSIVE_MODELS": ["neighbours.Vote", "neighbours.Place"]}
        after = steps(PROFILE)
        assert [step.models for step in after] == before
        assert {step.exclusive for step in after} == {(), (Vote,), (Place,), (Branch,)}

    def test_only_the_first_exclusive_batch_is_sent(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(2)
        store(*rows_of("vote", 5), *rows_of("memo", 2))
        run = start(new_run().pk).run
        first, second, third, memos = Batch.objects.filter(run=run).order_by("number")

        assert [batch.pk for batch in open_batches(run)] == [first.pk, memos.pk]
        assert recover(dispatch := RecordingDispatcher(), all_unfinished=True) == 2
        assert set(dispatch.sent) == {f"batch {first.pk}", f"batch {memos.pk}"}
        # One that comes too early does nothing
        assert attempt_batch(third.pk, third.ids_sha256).result is None
        assert execute_batch(second.pk).result is None
        assert not Vote.objects.exists()

        assert execute_batch(first.pk).batches_to_send == (second.pk,)
        assert recover(dispatch := RecordingDispatcher(), all_unfinished=True) == 2
        assert set(dispatch.sent) == {f"batch {second.pk}", f"batch {memos.pk}"}
        assert execute_batch(second.pk).batches_to_send == (third.pk,)
        assert execute_batch(third.pk).batches_to_send == ()
        assert votes() == 5

    def test_large_tree_is_handed_out_in_waves_of_batches_in_turn(
        self, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(3)
        rows = build_tree("branch", [4, 4])
        store(*rows)
        run = start(new_run().pk).run
        waves = []
        while not run.has_ended:
            waves.append(list(Batch.objects.filter(run=run, stage=run.stage).order_by("number")))
            for batch in waves[-1]:
                assert execute_batch(batch.pk).result is not None
            run = advance(run.pk).run

        assert [[(batch.offset, batch.size) for batch in wave] for wave in waves] == [[(0, 3), (3, 1)]] * 2
        assert {batch.split_from for wave in waves for batch in wave} == {Batch.EXCLUSIVE}
        assert sorted(Branch.objects.values_list("tree_id", "lft", "rght", "level")) == sorted(
            [*((tree, 1, 4, 0) for tree in range(1, 5)), *((tree, 2, 3, 1) for tree in range(1, 5))]
        )

    def test_split_exclusive_batch_keeps_its_place(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None]
    ) -> None:
        batch_size(4)
        store(*rows_of("vote", 8))
        run = start(new_run().pk).run
        first, second = Batch.objects.filter(run=run).order_by("number")
        Batch.objects.filter(pk=first.pk).update(attempts=3)

        batches_to_send = attempt_batch(first.pk, first.ids_sha256).batches_to_send

        done = []
        while batches_to_send:
            (batch_id,) = batches_to_send
            batches_to_send = execute_batch(batch_id).batches_to_send
            done.append(Batch.objects.get(pk=batch_id).offset)
        assert done == [0, 1, 2, 3, second.offset]
        assert votes() == 8


@pytest.mark.django_db
def test_each_record_costs_as_much_and_its_savepoint_nothing(votes_are_exclusive: None) -> None:
    def statements(number: int) -> list[str]:
        ids = store(*rows_of("vote", number))
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            assert deserialize_batch(PROFILE, ids).saved == number
        return [query["sql"] for query in queries]

    statements(1)  # which makes the tally
    few, many = statements(3), statements(30)
    assert sum("SAVEPOINT" in sql for sql in many) == sum("SAVEPOINT" in sql for sql in few)
    a_record = (len(many) - len(few)) / 27
    # Whether it was edited here, the tally, two for the row, the tally's update
    assert a_record == 5


@pytest.fixture
def in_a_thread() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Yield a function that calls another one in a thread; its error, or lack of an end, fails the test."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def call(function: Callable[[], Any]) -> None:
        def body() -> None:
            try:
                function()
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

        threads.append(threading.Thread(target=body))
        threads[-1].start()

    yield call
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not errors


@contextmanager
def held_tally(subject: str) -> Iterator[int]:
    """Hold up the process that counts a vote on a subject, in the middle of saving it."""
    Tally.objects.get_or_create(subject=subject)
    with held_rows("neighbours_tally", f"subject = '{subject}'") as holder:
        yield holder


@pytest.fixture
def waits_for_no_lock() -> Iterator[None]:
    """Let this connection fail where it would wait for a lock of the test itself."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '20s'")
        yield
        cursor.execute("RESET lock_timeout")


CallInThread = Callable[[Callable[[], Any]], None]


@pytest.mark.parametrize(
    ("statement", "recognized"),
    [
        ('UPDATE "tally" SET votes = 2', True),
        ("  update tally set votes = 2", True),
        ("INSERT INTO tally VALUES (1) ON CONFLICT (id) DO UPDATE SET votes = tally.votes + 1", True),
        ("MERGE INTO tally USING votes ON true WHEN MATCHED THEN UPDATE SET votes = 2", True),
        ("INSERT INTO tally VALUES (1) ON CONFLICT DO NOTHING", False),
        ("SELECT votes FROM tally", False),
        ("", False),
    ],
)
def test_statements_that_change_rows_which_are_there_are_recognized(statement: str, recognized: bool) -> None:
    assert updates(statement) is recognized


def test_exclusive_batch_may_update_other_rows() -> None:
    with pytest.raises(UpdatesOtherRows):
        ModelCodeGuard(exclusively=False).refuse_update(Vote, "UPDATE tally SET votes = 2")
    ModelCodeGuard(exclusively=True).refuse_update(Vote, "UPDATE tally SET votes = 2")


@pytest.mark.needs_postgresql
@pytest.mark.django_db(transaction=True)
class TestAtTheSameTime:
    """Other work beside a batch that is held up in the middle of its records' saving."""

    def test_batches_of_other_models_go_on_and_theirs_wait(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None], in_a_thread: CallInThread
    ) -> None:
        # Given a run in process, of as many connections as it likes
        batch_size(5)
        store(*rows_of("vote", 15), *rows_of("memo", 15))
        run = new_run(in_process=True)

        # When the first vote can't be counted
        with held_tally("lunch") as holder:
            in_a_thread(lambda: run_in_process(run))
            until(lambda: sessions_that_wait_for_a_lock(holder), "held up")

            # Then all that is no vote is done meanwhile, and no other batch of votes is begun
            until(lambda: Memo.objects.count() == 15, "done")
            assert len(sessions_that_wait_for_a_lock()) == 1
            assert not Vote.objects.exists()
        until(lambda: Run.objects.get(pk=run.pk).has_ended, "ended")
        assert votes() == Vote.objects.count() == 15

    def test_exclusive_batches_go_on_while_another_batch_is_held_up(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None], in_a_thread: CallInThread
    ) -> None:
        # Given a run in process, and a record of another model that somebody holds
        batch_size(5)
        memos = store(*rows_of("memo", 3))
        store(*rows_of("vote", 15))
        run = new_run(in_process=True)
        with held(memos[0]) as holder:
            in_a_thread(lambda: run_in_process(run))
            until(lambda: sessions_that_wait_for_a_lock(holder), "held up")

            # Then all batches of votes are done meanwhile, one after another
            until(lambda: Tally.objects.exists() and votes() == 15, "counted")
            assert not Memo.objects.exists()
        until(lambda: Run.objects.get(pk=run.pk).has_ended, "ended")

    def test_two_runs_wait_for_each_other(self, votes_are_exclusive: None, in_a_thread: CallInThread) -> None:
        # Given a batch of each of two runs, which count in different rows
        ones = store(*rows_of("vote", 3, partition="one", subject="lunch"))
        others = store(*rows_of("vote", 3, partition="two", subject="tea"))
        memos = store(*rows_of("memo", 3, partition="two"))

        def deserialize(ids: list[str], partition: str) -> None:
            with transaction.atomic():
                deserialize_batch(PROFILE, ids, Filter(partition))

        # When one is held up
        with held_tally("lunch") as holder:
            in_a_thread(lambda: deserialize(ones, "one"))
            until(lambda: sessions_that_wait_for_a_lock(holder), "held up")
            in_a_thread(lambda: deserialize(others, "two"))

            # Then the other waits for it, though it has other rows to write, and its other models don't
            until(lambda: len(sessions_that_wait_for_a_lock()) == 2, "waiting")
            deserialize(memos, "two")
            assert (Memo.objects.count(), Vote.objects.count()) == (3, 0)
        until(lambda: votes() == 6, "counted")

    @pytest.mark.usefixtures("waits_for_no_lock")
    def test_batch_is_postponed_and_sent_afterwards(
        self, votes_are_exclusive: None, batch_size: Callable[[int], None], in_a_thread: CallInThread
    ) -> None:
        # Given two runs of votes and a worker that is held up with the first batch of one
        batch_size(3)
        store(*rows_of("vote", 6, partition="one", subject="lunch"))
        store(*rows_of("vote", 3, partition="two", subject="tea"), *rows_of("memo", 3, partition="two"))
        first, second = (start(new_run(partition).pk).run for partition in ("one", "two"))
        begun, next_one = Batch.objects.filter(run=first).order_by("number")
        other, memos = Batch.objects.filter(run=second).order_by("number")
        note_sent(Batch.objects.all())
        ended: list[Execution] = []
        with held_tally("lunch") as holder:
            in_a_thread(lambda: ended.append(attempt_batch(begun.pk, begun.ids_sha256)))
            until(lambda: sessions_that_wait_for_a_lock(holder), "held up")

            # When another one gets the other run's batch, then it doesn't wait, and has lost nothing
            for _ in range(5):
                postponed = attempt_batch(other.pk, other.ids_sha256)
                assert (postponed.result, postponed.batches_to_send) == (None, ())
                waiting = Batch.objects.get(pk=other.pk)
                assert (waiting.state, waiting.attempts, waiting.overdue_at) == (Batch.State.OPEN, 0, None)
            result = attempt_batch(memos.pk, memos.ids_sha256).result
            assert result is not None
            assert result.saved == 3
            # And should the first worker die, recovery knows
            assert recover(dispatch := RecordingDispatcher()) == 1
            assert list(dispatch.sent) == [f"batch {other.pk}"]

        # Then who ends the first batch sends the one that waits, and its own next one
        until(lambda: ended, "ended")
        assert ended[0].batches_to_send == (other.pk, next_one.pk)
        assert attempt_batch(other.pk, other.ids_sha256).batches_to_send == ()
        assert attempt_batch(next_one.pk, next_one.ids_sha256).batches_to_send == ()
        assert votes() == 9

    def test_batch_that_is_postponed_unseen_is_sent_again(self, votes_are_exclusive: None) -> None:
        store(*rows_of("vote", 3))
        (batch,) = open_batches(start(new_run().pk).run)
        assert postpone(Batch.objects.filter(pk=batch.pk), batch.pk).batches_to_send == (batch.pk,)

    @pytest.mark.parametrize("save_each", [[], ["neighbours.Vote"]])
    def test_batch_seen_to_update_other_rows_begins_again_alone(
        self, in_a_thread: CallInThread, caplog: pytest.LogCaptureFixture, settings: Any, save_each: list[str]
    ) -> None:
        # Given two batches of a model that nobody has named as exclusive
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAVE_INDIVIDUALLY": save_each}
        ones, others = (store(*rows_of("vote", 3)) for _ in range(2))

        def deserialize(ids: list[str]) -> None:
            with transaction.atomic():
                assert deserialize_batch(PROFILE, ids).saved == 3

        # When one is held up as it is about to count, after the other was seen doing so
        deserialize(store(*rows_of("vote", 3)))
        (warning,) = [record.getMessage() for record in caplog.records if "updates other rows" in record.msg]
        with held_tally("lunch") as holder:
            in_a_thread(lambda: deserialize(ones))
            until(lambda: sessions_that_wait_for_a_lock(holder), "held up")
            in_a_thread(lambda: deserialize(others))

            # Then they aren't two that have read the same count
            until(lambda: len(sessions_that_wait_for_a_lock()) == 2, "waiting")
            assert len(sessions_that_wait_for_a_lock(holder)) == 1
        until(lambda: votes() == 9, "counted")
        assert warning.startswith(
            'neighbours.Vote.save() updates other rows (UPDATE "neighbours_tally" ...).'
        )


@pytest.mark.django_db
@pytest.mark.usefixtures("votes_are_exclusive")
def test_run_in_process_goes_on_by_itself(batch_size: Callable[[int], None]) -> None:
    batch_size(2)
    store(*rows_of("vote", 7), *rows_of("memo", 3))

    run = run_in_process(new_run(in_process=True))

    assert (run.state, run.saved, votes()) == (Run.State.COMPLETED, 10, 7)
