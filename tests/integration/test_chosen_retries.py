"""Failed records that are retried by their model or their exception: no others are touched."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from morango.models import Store

import morango_celery
from morango_celery.errors import UsageError
from morango_celery.models import Run
from morango_celery.runs.dry_run import dry_run
from morango_celery.runs.status import status_of
from tests.support.factories import store_row
from tests.support.operators import LOOK, logged_in
from tests.support.run_helpers import new_run
from worker.school.models import PROFILE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("serializable_in_a_transaction")]

INTEGRITY, VALIDATION = "django.db.utils.IntegrityError", "django.core.exceptions.ValidationError"
GROUPS = "/admin/morango_celery/recordinerror/"


def in_error(exception: str, model: str = "unit") -> Store:
    columns = {"deserialization_error": "broken", "deserialization_exception": exception}
    return store_row(model, columns=columns)


@pytest.fixture
def failed() -> dict[str, Store]:
    unit = store_row("unit")
    learner = store_row("learner", unit=unit)
    Store.objects.filter(pk=learner.pk).update(
        deserialization_error="broken", deserialization_exception=VALIDATION
    )
    Store.objects.filter(pk=unit.pk).update(dirty_bit=False)
    return {"invalid": in_error(VALIDATION), "clash": in_error(INTEGRITY), "learner": learner}


CASES = pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        ({"only_model": "unit"}, {"invalid", "clash"}),
        ({"only_exception": VALIDATION}, {"invalid", "learner"}),
        ({"only_exception": "IntegrityError"}, {"clash"}),
        ({"only_model": "unit", "only_exception": "ValidationError"}, {"invalid"}),
        ({"only_exception": "Error"}, set()),
        ({"only_model": "lesson"}, set()),
    ],
)


@CASES
def test_only_chosen_records_are_retried(
    failed: dict[str, Store], chosen: dict[str, Any], taken: set[str]
) -> None:
    foretold = dry_run(PROFILE, None, retry_errors=True, **chosen)
    pending = new_run(retry_errors=True, **chosen)
    assert foretold.records == status_of(pending.pk).total == len(taken)
    pending.delete()
    store_row("unit", id="ab" * 16)  # which waits, and is in no error

    run = morango_celery.deserialize(PROFILE, retry_errors=True, in_process=True, **chosen)

    left = set(Store.objects.filter(deserialization_error="broken").values_list("pk", flat=True))
    assert left == {row.pk for name, row in failed.items() if name not in taken}
    assert run.records == len(taken)
    assert Store.objects.get(pk="ab" * 16).dirty_bit


def test_retry_of_such_a_run_takes_the_same_records(failed: dict[str, Store]) -> None:
    first = morango_celery.deserialize(
        PROFILE, retry_errors=True, only_model="learner", only_exception="E", in_process=True
    )

    again = morango_celery.retry(first.pk)

    assert (again.retry_errors, again.only_model, again.only_exception) == (True, "learner", "E")


def test_choice_without_retry_is_refused() -> None:
    with pytest.raises(UsageError, match="only if it retries errors"):
        morango_celery.deserialize(PROFILE, only_model="unit")
    with pytest.raises(CommandError, match="need --retry-errors"):
        call_command("deserialize", "--profile", PROFILE, "--only-exception", "ValidationError")
    assert not Run.objects.exists()


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_model_that_the_profile_has_not_is_refused(options: list[str]) -> None:
    arguments = ["--profile", PROFILE, "--retry-errors", "--only-model", "lerner", *options]
    with pytest.raises(CommandError, match=r"'school' has no model 'lerner'\. Did you mean 'learner'\?"):
        call_command("deserialize", *arguments)
    assert not Run.objects.exists()


def test_command_retries_by_model_and_exception(failed: dict[str, Store]) -> None:
    out = StringIO()
    arguments = ["--profile", PROFILE, "--retry-errors", "--in-process"]

    call_command("deserialize", *arguments, "--only-model", "unit", "--only-exception", INTEGRITY, stdout=out)

    assert "1 record in" in out.getvalue()
    failed["clash"].refresh_from_db()
    assert not failed["clash"].dirty_bit


def test_operator_retries_one_group_of_errors(
    failed: dict[str, Store], operator: Client, settings: Any
) -> None:
    settings.MORANGO_CELERY = {"IN_PROCESS": True}
    group = {"profile": PROFILE, "model_name": "unit", "deserialization_exception": INTEGRITY}
    assert operator.get(GROUPS).content.decode().count(">Retry</button>") == 3

    answer = operator.post(f"{GROUPS}retry/", group, follow=True).content.decode()

    run = Run.objects.get()
    assert (run.only_model, run.only_exception, run.records, run.saved) == ("unit", INTEGRITY, 1, 1)
    assert f"retries all failed records of school: unit, {INTEGRITY}" in answer
    assert answer.count(">Retry</button>") == 2
    options = operator.get(f"/admin/morango_celery/run/{run.pk}/change/").content.decode()
    assert f"of the model unit, with {INTEGRITY}" in options
    assert ">Retry</button>" not in logged_in("guest", LOOK).get(GROUPS).content.decode()
