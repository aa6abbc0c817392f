"""Large arguments that are sent again, late, or with a transaction."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from redis import Redis

from morango_celery.errors import (
    MissingPayloadError,
)
from morango_celery.payloads import Reference
from morango_celery.payloads.memory import MemoryBackend
from morango_celery.version import PAYLOAD_FORM, PAYLOAD_FORM_HEADER
from tests.payloads.messages import waiting
from tests.payloads.project import (
    echo,
    succeed_later,
)
from tests.payloads.sent import LARGE, reference_of, sent


class TestRetries:
    def test_retry_stores_nothing_and_wraps_nothing_again(
        self, broker: Redis, memory_backend: MemoryBackend
    ) -> None:
        succeed_later.delay(LARGE, more=LARGE)
        stored = dict(memory_backend._blobs)
        bodies = []

        while messages := waiting(broker):
            (message,) = messages
            bodies.append(message.body)
            result = message.deliver()

        ids, more, args, headers = result
        reference = Reference(*reference_of(LARGE)).as_json()
        assert len(bodies) == 3
        assert bodies[0].partition(b"null")[0] == bodies[2].partition(b"null")[0]
        assert (ids, more, args, memory_backend._blobs) == (LARGE, LARGE, [reference], stored)
        assert headers == {"payloads": [-1, "more"], PAYLOAD_FORM_HEADER: PAYLOAD_FORM}

    def test_retry_with_other_arguments_sends_these(self, broker: Redis) -> None:
        succeed_later.delay(LARGE, more=LARGE)
        headers = sent(broker).headers
        request = type(succeed_later.request)({**headers, "args": [1], "kwargs": {"more": LARGE}})

        with_args = succeed_later.signature_from_request(request, args=[{"payload": "mine"}])
        with_both = succeed_later.signature_from_request(request, args=[1], kwargs={})

        assert headers["payloads"] == [-1, "more"]
        assert with_args.options["payloads"] == ["more"]
        assert "payloads" not in with_both.options

    def test_referenced_value_is_kept_for_the_retry(
        self, broker: Redis, memory_backend: MemoryBackend, configure: Any
    ) -> None:
        succeed_later.delay(LARGE)
        before = dict(memory_backend._expires_at)
        configure(TTL_SECONDS=30 * 24 * 60 * 60)

        sent(broker).deliver()

        assert all(
            memory_backend._expires_at[key] > until + 20 * 24 * 60 * 60 for key, until in before.items()
        )


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"countdown": 1_000_000},
        lambda: {"eta": datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1_000_000)},
    ],
    ids=["countdown", "eta"],
)
def test_value_of_a_delayed_message_is_kept_for_longer(
    broker: Redis, memory_backend: MemoryBackend, options: Callable[[], dict[str, Any]]
) -> None:
    echo.apply_async([LARGE])
    (before,) = memory_backend._expires_at.values()
    echo.apply_async([LARGE], **options())

    assert next(iter(memory_backend._expires_at.values())) - before == pytest.approx(1_000_000, abs=60)


@pytest.mark.django_db(transaction=True)
class TestInATransaction:
    @pytest.fixture(autouse=True)
    def _in_the_database(self, broker: Redis, configure: Any) -> None:
        configure(BACKEND="database", LOCATION="")

    def test_delay_on_commit_stores_and_sends_when_that_is_committed(self, broker: Redis) -> None:
        with transaction.atomic():
            echo.delay_on_commit(LARGE)
            echo.apply_async_on_commit([LARGE], {"name": LARGE})
            assert waiting(broker) == []

        assert [message.deliver() for message in waiting(broker)] == [
            [[LARGE], {}],
            [[LARGE], {"name": LARGE}],
        ]

    def test_value_stored_in_a_rolled_back_transaction_is_gone(self, broker: Redis) -> None:
        with transaction.atomic():
            echo.delay(LARGE)
            transaction.set_rollback(True)

        with pytest.raises(MissingPayloadError, match="or was rolled back"):
            sent(broker).deliver()
