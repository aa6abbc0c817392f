"""The timeline of a run: its stages, workers and attempts, as the ledger has them, and its drawing."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from django.db import InterfaceError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from morango_celery.errors import SoftTimeLimitReached
from morango_celery.models import Batch, Run
from morango_celery.runs import attempts
from morango_celery.runs.attempts import attempt_batch
from morango_celery.runs.batching import open_batches
from morango_celery.runs.beginning import begin_attempt
from morango_celery.runs.history import MAX_CHARACTERS, ended, past_attempts
from morango_celery.runs.inprocess import run_in_process
from morango_celery.runs.lost_attempts import WORKER_LOST
from morango_celery.runs.message import Message
from morango_celery.runs.opening import attempt_opening, attempt_start
from morango_celery.runs.producer import advance, start
from morango_celery.runs.timeline import MAX_STAGES, MAX_WORKERS, OWN_PROCESS, timeline
from tests.integration.admin_pages import RUNS, page_of, shown, text_of
from tests.support.factories import fill_store, store_row
from tests.support.operators import LOOK, logged_in
from tests.support.run_helpers import ago, new_run, unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

SVG = "{http://www.w3.org/2000/svg}"


def of_worker(name: str, message: str = "one") -> Message:
    return Message(message, worker=name)


def drawn(client: Client, run: Run) -> ElementTree.Element:
    """Return the drawing, which has to be well-formed."""
    page = client.get(f"{RUNS}{run.pk}/timeline/").content.decode()
    return ElementTree.fromstring(
        page[(start := page.index('<svg class="morango-timeline"')) : page.index("</svg>", start) + 6]
    )


def bars(svg: ElementTree.Element, kind: str) -> list[str]:
    """Return the texts of the bars of a kind."""
    found = (bar for bar in svg.iter(f"{SVG}rect") if bar.get("class") == kind)
    return [bar.findtext(f"{SVG}title") or "" for bar in found]


def test_ledger_learns_worker_and_models_of_each_batch(batch_size: Callable[[int], None]) -> None:
    # Given a run of two stages, whose batches two workers execute
    batch_size(1)
    parent = unit()
    store_row("lesson", unit_id=parent.id)
    run = start(new_run().pk).run
    for name in ("celery@north 1", "celery@south 2"):
        (batch,) = open_batches(run)
        assert attempt_batch(batch.pk, batch.ids_sha256, of_worker(name)).stage_is_done
        run = attempt_opening(run.pk, lambda run: advance(run.pk)).run

    # Then its timeline has the stages in order, and the work of each worker
    found = timeline(run)
    assert [(stage.models, stage.batches, stage.records) for stage in found.stages] == [
        ("unit", 1, 1),
        ("lesson + learner", 1, 1),
    ]
    assert [(work.worker, work.stage, work.number) for work in found.work] == [
        ("celery@north 1", 1, 1),
        ("celery@south 2", 2, 1),
    ]
    assert found.workers == ["celery@north 1", "celery@south 2"]
    first, second = found.stages
    assert first.begun_at is not None
    assert second.begun_at is not None
    assert first.ended_at is not None
    assert found.begin <= first.begun_at <= first.ended_at <= second.begun_at <= found.end
    assert not found.lost_attempts


def test_run_of_one_batch_has_the_worker_that_started_it() -> None:
    unit()
    run = new_run()

    attempt_start(run.pk, of_worker("celery@north 1"))

    assert list(Batch.objects.values_list("worker", "stage_models")) == [("celery@north 1", "unit")]


def test_attempts_without_result_are_kept_with_worker_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a batch that takes one worker too long
    unit()
    run = start(new_run().pk).run
    (batch,) = open_batches(run)

    def too_long(*arguments: Any, **options: Any) -> Any:
        raise SoftTimeLimitReached

    with monkeypatch.context() as broken:
        broken.setattr("morango_celery.runs.attempts.execute_batch", too_long)
        attempt_batch(batch.pk, batch.ids_sha256, of_worker("celery@north 1"))

    # ... and another one that is stopped
    with monkeypatch.context() as broken:
        broken.setattr("morango_celery.runs.attempts.execute_batch", lambda *_, **__: attempts.NOTHING)
        attempt_batch(batch.pk, batch.ids_sha256, of_worker("celery@south 2", "two"))
    attempts.uncount_after_signal(batch.pk, Message("two"))

    # When a third one is done with it, then each attempt is known
    Batch.objects.update(attempted_at=ago(5))
    assert attempt_batch(batch.pk, batch.ids_sha256, of_worker("celery@east 3", "three")).stage_is_done
    lost, stopped = timeline(run).lost_attempts
    assert (lost.worker, lost.reason) == ("celery@north 1", attempts.OUT_OF_TIME)
    assert (stopped.worker, stopped.reason) == ("celery@south 2", "its worker was stopped")
    assert lost.ended_at is not None
    assert abs(lost.ended_at - timezone.now()) < datetime.timedelta(minutes=10)
    assert timeline(run).workers == ["celery@north 1", "celery@south 2", "celery@east 3"]


def test_attempts_of_lost_workers_and_in_outages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a batch whose worker was lost
    unit()
    run = start(new_run().pk).run
    (batch,) = open_batches(run)
    assert begin_attempt(batch.pk, batch.ids_sha256, of_worker("celery@north 1"))
    Batch.objects.update(attempted_at=ago(5))

    # ... and which the database ended for the next one, with a value of a record in its words
    def deadlock(*arguments: Any, **options: Any) -> Any:
        raise InterfaceError("deadlock detected\nDETAIL: Ada Lovelace")

    with monkeypatch.context() as broken:
        broken.setattr("morango_celery.runs.attempts.execute_batch", deadlock)
        with pytest.raises(InterfaceError):
            attempt_batch(batch.pk, batch.ids_sha256, of_worker("celery@south 2", "two"))

    # Then both are known, and nothing of a record
    assert [(lost.worker, lost.reason) for lost in timeline(run).lost_attempts] == [
        ("celery@north 1", WORKER_LOST),
        ("celery@south 2", "the database ended it: deadlock detected"),
    ]


def test_history_keeps_the_newest_attempts_in_a_bounded_text() -> None:
    batch = Batch.of(new_run(), 1, ["ab" * 16], worker="celery@north\\t1", attempted_at=ago(10))
    batch.save()
    for number in range(60):
        Batch.objects.update(**ended(f"reason {number}\nwith a value"))

    batch.refresh_from_db()

    assert len(batch.earlier_attempts) == MAX_CHARACTERS
    kept = past_attempts(batch)
    assert [past.reason for past in kept] == [f"reason {number}" for number in range(60 - len(kept), 60)]
    assert len(kept) > 10
    assert batch.attempted_by == ""


def test_run_in_process_has_its_batches_one_after_another(batch_size: Callable[[int], None]) -> None:
    batch_size(10)
    fill_store(40)

    run = run_in_process(new_run(in_process=True))

    found = timeline(run)
    assert found.workers == [OWN_PROCESS]
    assert len(found.work) == sum(stage.batches for stage in found.stages) == Batch.objects.count()
    ends = [work.ended_at for work in found.work]
    assert [work.begun_at for work in found.work][1:] == ends[:-1]


def many_batches(run: Run, stages: int, batches: int, workers: int) -> None:
    begun = run.started_at
    assert begun is not None
    made = []
    for stage in range(1, stages + 1):
        for number in range(1, batches + 1):
            at = begun + datetime.timedelta(seconds=stage * 10 + number / 100)
            made.append(
                Batch(
                    run=run,
                    stage=stage,
                    number=number,
                    stage_models=f"model {stage // 3}",
                    state=Batch.State.DONE,
                    size=7,
                    saved=7,
                    attempts=2 if number == 1 else 1,
                    worker=f"celery@<b>host {(stage * batches + number) % workers}",
                    attempted_at=at,
                    sent_at=at - datetime.timedelta(seconds=2),
                    finished_at=at + datetime.timedelta(seconds=1),
                )
            )
    Batch.objects.bulk_create(made)


def test_thousands_of_batches_are_summed_up(operator: Client) -> None:
    # Given a small run, and one of many stages, batches and workers
    small, large = (new_run(state=Run.State.RUNNING, started_at=ago(2000)) for _ in range(2))
    many_batches(small, stages=3, batches=5, workers=2)
    many_batches(large, stages=60, batches=10, workers=50)
    operator.get(page_of(small))  # content types are cached then

    counted = []
    for run in (small, large):
        with CaptureQueriesContext(connection) as queries:
            svg = drawn(operator, run)
        counted.append(len(queries))

    # Then the large one takes one query more, and its drawing stays small
    assert counted[1] == counted[0] + 1
    assert len(list(svg.iter())) < 2_000
    found = timeline(large)
    assert found.is_summed_up
    assert len(found.stages) <= MAX_STAGES
    assert len(found.workers) == MAX_WORKERS
    assert sum(stage.batches for stage in found.stages) == 600
    assert sum(work.batches for work in found.work if work.number is None) == 600
    assert len([work for work in found.work if work.number is not None]) == 60


def test_drawing_escapes_its_texts_and_can_be_read_without_eyes(operator: Client) -> None:
    # Given a run with hostile names, that has lost an attempt and waits for another run
    run = new_run(state=Run.State.RUNNING, started_at=ago(100))
    many_batches(run, stages=2, batches=2, workers=1)
    Batch.objects.filter(stage=2, number=2).update(
        **{**ended('<script>alert("x")</script>'), "attempts": 2, "worker": "celery@<b>other"}
    )

    svg = drawn(operator, run)

    # Then nothing of them is markup
    page = operator.get(f"{RUNS}{run.pk}/timeline/").content.decode()
    assert "<b>" not in page
    assert "<script>alert" not in page
    assert "An attempt at batch 2/2 that came to no result: <script>alert" in bars(svg, "batch lost")[0]
    assert bars(svg, "batch again")[-1] == (
        "batch 2/2: 7 records in 1.0 s, attempt 2, 2.0 s after its message."
    )
    # ... and the drawing has a title, a text, and the same as tables
    assert (svg.get("role"), svg.get("aria-labelledby")) == ("img", "timeline-title timeline-text")
    assert svg.findtext(f"{SVG}title") == f"Timeline of run {run.pk}"
    summary = svg.findtext(f"{SVG}desc") or ""
    assert re.match(rf"Run {run.pk} is running\. It waited for .*; 1 attempt came to no result", summary)
    text = text_of(page)
    assert summary in text
    assert "stage 2: model 0 2 14 0 20" in text
    assert "style=" not in ElementTree.tostring(svg).decode()


def test_run_that_has_not_begun_is_drawn_as_one_that_waits(operator: Client) -> None:
    run = new_run(created_at=ago(60), blocked_by=new_run())

    assert "is pending and has waited for" in shown(operator, f"{RUNS}{run.pk}/timeline/")
    (waits,) = bars(drawn(operator, run), "waits")
    assert "waits for the end of run" in waits


def test_timeline_is_linked_shown_to_viewers_and_refreshed_until_the_end() -> None:
    running, done = new_run(), new_run(state=Run.State.COMPLETED, started_at=ago(3), finished_at=ago(1))
    guest = logged_in("guest", LOOK)

    assert f'href="{RUNS}{done.pk}/timeline/"' in guest.get(page_of(done)).content.decode()
    assert guest.get(f"{RUNS}{running.pk}/timeline/")["Refresh"] == "5"
    assert not guest.get(f"{RUNS}{done.pk}/timeline/").has_header("Refresh")
    assert guest.get(f"{RUNS}4711/timeline/").status_code == 404
    assert logged_in("stranger", ("view_batch",)).get(f"{RUNS}{done.pk}/timeline/").status_code == 403
