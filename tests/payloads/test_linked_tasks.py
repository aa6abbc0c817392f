"""Large arguments of the tasks that follow a message, and of a message as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group
from redis import Redis

from morango_celery.errors import (
    MessageTooLargeError,
)
from morango_celery.payloads.memory import MemoryBackend
from tests.payloads.messages import waiting
from tests.payloads.project import (
    echo,
    join,
    partly_inline,
    plain,
    wholly_inline,
)
from tests.payloads.sent import LARGE, SMALL, sent


class TestTheWholeMessage:
    def test_many_small_arguments_are_stored_the_largest_first_until_the_rest_fits(
        self, broker: Redis, configure: Any
    ) -> None:
        configure(MAX_MESSAGE_BYTES=6000)
        arguments = ["a" * 1000, "b" * 3000, "c" * 2000, "d" * 2500]
        echo.delay(*arguments)

        message = sent(broker)
        assert message.headers["payloads"] == [-3]  # 8,508 bytes without the largest are 5,506
        assert message.deliver() == [arguments, {}]

    def test_message_too_large_for_inline_arguments_is_refused(
        self, broker: Redis, configure: Any, memory_backend: MemoryBackend
    ) -> None:
        configure(MAX_MESSAGE_BYTES=6000)

        with pytest.raises(MessageTooLargeError, match=r"are 17,501 bytes, .* is 6,000"):
            wholly_inline.delay(LARGE)
        assert (waiting(broker), memory_backend._blobs) == ([], {})

    def test_arguments_of_linked_tasks_count_too(self, broker: Redis, configure: Any) -> None:
        configure(MAX_MESSAGE_BYTES=3000)
        (echo.s("a" * 1000) | echo.si("b" * 1500) | echo.si("c" * 1800)).apply_async()

        message = sent(broker)
        assert b"ccc" not in message.body
        assert b"bbb" in message.body


class TestLinkedTasks:
    """Arguments that one message takes along for the next ones."""

    def test_no_message_of_a_chain_has_a_large_argument(
        self, broker: Redis, memory_backend: MemoryBackend
    ) -> None:
        more = [[f"{letter}{one}" for one in LARGE] for letter in "ab"]
        chain(join.s(LARGE), join.s(more[0]), join.s(more[1])).apply_async()
        bodies = []

        while messages := waiting(broker):
            (message,) = messages
            bodies.append(message.body)
            result = message.deliver()

        assert result == LARGE + more[0] + more[1]
        assert [LARGE[0].encode() in body for body in bodies] == [False] * 3
        assert (
            len(memory_backend._blobs) == 4
        )  # three arguments, the first of which is a result too, and another

    def test_immutable_signature_is_given_nothing_before_its_own(self, broker: Redis) -> None:
        (plain.s(1) | partly_inline.si(SMALL, LARGE)).apply_async()
        (echo.s(1) | partly_inline.si(SMALL, LARGE)).apply_async()

        of_another_class, ours = waiting(broker)
        of_another_class.deliver()
        ours.deliver()
        first, second = waiting(broker)
        assert LARGE[0].encode() in of_another_class.body
        assert LARGE[0].encode() not in ours.body
        assert first.deliver() == second.deliver() == [SMALL, LARGE]

    def test_opting_out_counts_the_result_that_comes_first(self, broker: Redis) -> None:
        """The second argument of ``partly_inline(result, large)`` may be stored."""
        (echo.s(1) | partly_inline.s(LARGE)).apply_async()

        message = sent(broker)
        assert LARGE[0].encode() not in message.body
        message.deliver()
        assert sent(broker).deliver() == [[[1], {}], LARGE]

    def test_arguments_of_callbacks_and_their_parts_are_offloaded(self, broker: Redis) -> None:
        last = group(join.s(LARGE), chain(join.s(LARGE), join.s(["end"])))
        join.apply_async([["begin"]], link=[join.s(LARGE), last])

        message = sent(broker)
        assert LARGE[0].encode() not in message.body
        results = [message.deliver()]
        while messages := waiting(broker):
            for message in messages:
                assert LARGE[0].encode() not in message.body
                results.append(message.deliver())
        assert sorted(map(len, results)) == [1, 501, 501, 501, 502]

    def test_arguments_of_a_chords_body_are_offloaded(self, broker: Redis) -> None:
        chord([join.s(LARGE), join.s(["x"])], join.s(LARGE)).apply_async()

        for message in waiting(broker):
            assert LARGE[0].encode() not in message.body

    def test_callbacks_of_errors_stay_inline_for_celery_may_call_them_itself(self, broker: Redis) -> None:
        echo.apply_async([1], link_error=echo.s(LARGE))

        assert LARGE[0].encode() in sent(broker).body

    def test_signature_itself_is_not_changed(self, broker: Redis) -> None:
        first, second = join.s(LARGE), join.s(LARGE)
        work = chain(first, second)
        work.apply_async()
        work.apply_async()

        assert first.args == second.args == (LARGE,)
        assert [message.deliver() for message in waiting(broker)] == [LARGE, LARGE]
