"""Committed databases, with batches executed by several workers at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from morango.models import DeletedModels, HardDeletedModels, Store
from morango.models.certificates import Filter

from morango_celery.db.errors import is_transient
from morango_celery.models import Run
from morango_celery.runs.completion import finalize
from morango_celery.runs.execution import execute_batch
from morango_celery.runs.producer import advance, create_run, start
from tests.parity.case import Case
from tests.parity.deliveries import Delivery
from tests.parity.forests import EXAMPLES, SEED, cases
from tests.parity.oracle import expected, in_our_words
from tests.parity.worlds import MODEL_ZOO, SCHOOL, World
from tests.support.comparison import Database, difference, read, rolled_back

WORKERS = 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("trees_alone")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", [SCHOOL, MODEL_ZOO], ids=["school", "model_zoo"])
@settings(
    deadline=None,
    derandomize=not SEED,
    max_examples=max(5, EXAMPLES // 10),
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},
)
@seed(SEED)
@given(data=st.data())
def test_result_is_morangos_whatever_runs_at_the_same_time(world: World, data: st.DataObject) -> None:
    case = data.draw(cases(world))
    delivery = Delivery(data.draw(st.sampled_from([1, 2, 3])), data.draw(st.integers(0, 99)), repeated=True)
    ours = Database()
    with _committed(case):
        _carry_out(case, delivery)
        with rolled_back():
            read(ours, case.profile)
    assert not difference(in_our_words(expected(case, ours), ours, case), ours)


@contextmanager
def _committed(case: Case) -> Iterator[None]:
    with transaction.atomic():
        case.set_up(case.rows)
    try:
        yield
    finally:
        with transaction.atomic():
            for model in apps.get_models():
                if getattr(model, "morango_profile", None) == case.profile and not model._meta.proxy:
                    model._base_manager.all()._raw_delete("default")  # type: ignore[attr-defined]
            for table in (Store, DeletedModels, HardDeletedModels, Run):
                table.objects.all().delete()


def _carry_out(case: Case, delivery: Delivery) -> None:
    with delivery.settings():
        run = create_run(
            case.profile,
            case.filter or Filter(""),
            skip_erroring=case.skip_erroring,
            serialize_first=False,
            session_notified=True,
        )
        progress = start(run.pk)
        while not progress.run.has_ended:
            _execute_side_by_side(delivery.messages(run))
            progress = advance(run.pk)
        finalize(progress.run)


def _execute_side_by_side(batch_ids: list[int]) -> None:
    waiting: SimpleQueue[int] = SimpleQueue()
    problems: list[BaseException] = []
    for batch_id in batch_ids:
        waiting.put(batch_id)
    workers = [Thread(target=_work, args=(waiting, problems)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if problems:
        raise problems[0]


def _work(waiting: SimpleQueue[int], problems: list[BaseException]) -> None:
    try:
        while True:
            batch_id = waiting.get_nowait()
            try:
                execute_batch(batch_id)
            except DatabaseError as error:
                if not is_transient(error):
                    raise
                waiting.put(batch_id)  # as Celery would, a little later
    except Empty:
        pass
    except BaseException as error:
        problems.append(error)  # raised again by the thread that started this one
    finally:
        connection.close()
