"""An error that all records of a batch share ends the run, unless it may be about their contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from morango.models import Store

from morango_celery.errors import SystemicError
from morango_celery.models import Run
from tests.integration.in_process import deserialize
from tests.support import factories
from tests.support.run_helpers import dirty_ids, errors
from worker.school.models import Learner, Unit

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]


class ServiceDownError(Exception):
    """An error of the application's own."""


BATCH = 20
"""Records of a batch, of which so many with one error end the run."""

LETTERS = str.maketrans("0123456789", "abcdefghij")
"""A table that spells numbers with letters, so that texts differ in more than numbers."""


def failing(error: Callable[[Learner], Exception | None]) -> Callable[..., None]:
    """Return a `save()` that raises the error that `error` makes of the learner."""
    original = Learner.save

    def save(self: Learner, *args: Any, **options: Any) -> None:
        if found := error(self):
            raise found
        original(self, *args, **options)

    return save


class TestCommonCause:
    """Given more learners than a batch takes, whose code raises an error."""

    @pytest.fixture(autouse=True)
    def learners(self, batch_size: Callable[[int], None], settings: Any) -> None:
        batch_size(BATCH)
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAME_ERROR_LIMIT_RECORDS": BATCH}
        unit = factories.store_row("unit", dirty=False)
        Unit(id=unit.id, school_id=factories.SCHOOL_ID, name="Unit").save_base(raw=True)
        Unit.objects.update(_morango_dirty_bit=False)
        rows = [
            factories.build_store_row("learner", unit=unit, username=f"name-{n}") for n in range(2 * BATCH)
        ]
        Store.objects.bulk_create(rows)

    @pytest.mark.parametrize(
        "error",
        [
            lambda learner: ServiceDownError("the service can't be reached"),
            lambda learner: ConnectionRefusedError(111, "Connection refused"),
            lambda learner: RuntimeError(f"no service for {learner.id}"),
        ],
    )
    def test_run_ends_where_all_records_fail_alike(
        self,
        monkeypatch: pytest.MonkeyPatch,
        error: Any,
        caplog: pytest.LogCaptureFixture,
        django_capture_on_commit_callbacks: Any,
    ) -> None:
        waiting = dirty_ids()
        monkeypatch.setattr(Learner, "save", failing(error))

        with (
            django_capture_on_commit_callbacks(execute=True),
            pytest.raises(
                SystemicError, match=rf"All {BATCH} records of batch 1/1 of run \d+ failed with one"
            ),
        ):
            deserialize()

        # Then nothing was done, and one line of the log says what it is
        run = Run.objects.get()
        assert run.state == Run.State.FAILED
        assert type(error(Learner(id="ab" * 16))).__name__ in run.error
        assert "SAME_ERROR_LIMIT_RECORDS" in run.error
        assert (dirty_ids(), errors()) == (waiting, {})
        (line,) = [line for line in caplog.records if line.name.startswith("morango")]
        assert line.message.startswith("The run has ended, failed: ")
        assert type(error(Learner(id="ab" * 16))).__name__ in line.message

        # ... and once it is mended, all are saved
        monkeypatch.undo()
        assert (deserialize().saved) == 2 * BATCH

    @pytest.mark.parametrize(
        "error",
        [
            lambda learner: ValidationError("It can't be."),
            lambda learner: ValueError("It can't be."),
            lambda learner: KeyError("missing"),
            lambda learner: ServiceDownError(learner.username.translate(LETTERS)),
            lambda learner: None if learner.username.endswith("7") else ServiceDownError("can't be reached"),
        ],
        ids=["validation", "value", "key", "different", "not all"],
    )
    def test_run_goes_on_where_it_may_be_the_records(
        self, monkeypatch: pytest.MonkeyPatch, error: Any
    ) -> None:
        monkeypatch.setattr(Learner, "save", failing(error))

        run = deserialize()

        assert run.state == Run.State.COMPLETED
        assert run.failed == len(errors()) == len(dirty_ids()) > 3 * BATCH // 2

    @pytest.mark.parametrize(("limit", "goes_on"), [(0, True), (BATCH, False), (BATCH + 1, True)])
    def test_setting_says_of_how_many_records(
        self, monkeypatch: pytest.MonkeyPatch, settings: Any, limit: int, goes_on: bool
    ) -> None:
        settings.MORANGO_CELERY = {**settings.MORANGO_CELERY, "SAME_ERROR_LIMIT_RECORDS": limit}
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("can't be reached")))

        if goes_on:
            deserialize()
        else:
            with pytest.raises(SystemicError):
                deserialize()

        assert Run.objects.get().state == (Run.State.COMPLETED if goes_on else Run.State.FAILED)
        assert len(errors()) == (2 * BATCH if goes_on else 0)

    def test_records_that_cannot_be_read_are_no_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given records that all hold what no column takes
        for row in Store.objects.filter(model_name="learner"):
            row.serialized = json.dumps({**json.loads(row.serialized), "school_id": 5})
            row.save()
        monkeypatch.setattr(Learner, "clean_fields", lambda *args, **options: None)
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("never again")))

        assert deserialize().failed == 2 * BATCH

    def test_earlier_failure_is_no_reason(self, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
        # Given records that are in error already, all with the same
        monkeypatch.setattr(Learner, "save", failing(lambda _: ServiceDownError("can't be reached")))
        before = settings.MORANGO_CELERY
        settings.MORANGO_CELERY = {**before, "SAME_ERROR_LIMIT_RECORDS": 0}
        assert deserialize().failed == 2 * BATCH
        settings.MORANGO_CELERY = before

        # When they fail again, with or without being asked for, then that is nothing new
        asked: list[tuple[dict[str, Any], int]] = [({}, 2 * BATCH), ({"retry_errors": True}, 2 * BATCH)]
        for options, failed in [*asked, ({"skip_erroring": True}, 0)]:
            run = deserialize(**options)
            assert (run.state, run.failed, run.previous_failures) == (Run.State.COMPLETED, failed, failed)

    def test_failure_in_a_later_pass_is_no_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a batch full of records that fail together with others in the first pass, and then alone
        bad = {f"name-{number}" for number in range(0, 2 * BATCH, 2)}

        def error(learner: Learner) -> Exception | None:
            return ServiceDownError("not this one") if learner.username in bad else None

        monkeypatch.setattr(Learner, "save", failing(error))

        run = deserialize()

        assert (run.state, run.saved, run.failed, run.pass_number) == (Run.State.COMPLETED, BATCH, BATCH, 2)
