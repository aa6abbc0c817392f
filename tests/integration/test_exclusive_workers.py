"""Records of exclusive models through real workers, and two runs of them at once."""

from __future__ import annotations

import pytest
from morango.models import Store

import morango_celery
from morango_celery.api import wait_for
from morango_celery.models import Batch, Run
from tests.neighbours.models import PROFILE, Branch, Memo, Tally, Vote
from tests.neighbours.rows import build_row, build_tree
from tests.support.waiting import held_rows, sessions_that_wait_for_a_lock, until
from tests.support.workers import StartWorker

pytestmark = pytest.mark.django_db(transaction=True)

WORKER = {"DJANGO_SETTINGS_MODULE": "tests.neighbours.settings", "MORANGO_CELERY_BATCH_SIZE_RECORDS": "5"}
PARTITIONS = ("north", "south")


def two_runs() -> list[Run]:
    """Enqueue a run for each partition, and wait until both have ended."""
    runs = [morango_celery.deserialize(PROFILE, partition) for partition in PARTITIONS]
    return [wait_for(run, 90) for run in runs]


@pytest.mark.parametrize("named", ["neighbours.Vote", ""], ids=["by the settings", "seen at work"])
def test_all_is_counted_whatever_the_batches_and_workers(
    celery_worker_process: StartWorker, named: str
) -> None:
    Store.objects.bulk_create(
        build_row("vote", partition=partition) for partition in PARTITIONS for _ in range(30)
    )
    for _ in range(2):
        celery_worker_process(concurrency=2, EXCLUSIVE_MODELS=named, **WORKER)

    runs = two_runs()

    assert [(run.state, run.saved, run.failed) for run in runs] == [(Run.State.COMPLETED, 30, 0)] * 2
    assert Tally.objects.get().votes == Vote.objects.count() == 60
    assert Batch.objects.count() == 12


def test_trees_of_two_runs_get_tree_ids_of_their_own(celery_worker_process: StartWorker) -> None:
    # Given the trees of two facilities, each of several batches
    trees = [build_tree("branch", [8, 16, 8], partition=partition) for partition in PARTITIONS]
    Store.objects.bulk_create(row for rows in trees for row in rows)
    for _ in range(2):
        celery_worker_process(concurrency=2, **WORKER)

    runs = two_runs()

    # Then each node encloses what is below it, and there is no tree twice
    assert [(run.state, run.saved) for run in runs] == [(Run.State.COMPLETED, 32)] * 2
    roots = Branch.objects.filter(parent=None)
    assert sorted(roots.values_list("tree_id", flat=True)) == list(range(1, 17))
    for root in roots:
        below = root.get_descendants(include_self=True)
        edges = sorted(edge for node in below for edge in (node.lft, node.rght))
        assert edges == list(range(1, 2 * len(below) + 1))
        for node in below.exclude(pk=root.pk):
            parent = node.parent
            assert (parent.lft < node.lft, node.rght < parent.rght, node.level) == (
                True,
                True,
                parent.level + 1,
            )
    assert Branch.objects.count() == 64


def test_worker_goes_on_with_other_models_and_other_runs(celery_worker_process: StartWorker) -> None:
    # Given as many runs with votes as a worker has processes, and one vote that can't be counted
    Store.objects.bulk_create(
        build_row(model_name, partition=partition)
        for partition in PARTITIONS
        for model_name in ("vote", "memo")
        for _ in range(20)
    )
    Tally.objects.create(subject="lunch")
    with held_rows("neighbours_tally", "subject = 'lunch'") as holder:
        celery_worker_process(concurrency=2, EXCLUSIVE_MODELS="neighbours.Vote", **WORKER)

        # When they are carried out
        runs = [morango_celery.deserialize(PROFILE, partition) for partition in PARTITIONS]
        until(lambda: sessions_that_wait_for_a_lock(holder), "held up")

        # Then no process waits for another one's end, and all other models are done meanwhile
        until(lambda: Memo.objects.count() == 40, "done")
        assert len(sessions_that_wait_for_a_lock()) == 1
        assert not Vote.objects.exists()
    ended = [wait_for(run, 90) for run in runs]
    assert [run.saved for run in ended] == [40, 40]
    assert Tally.objects.get().votes == 40
