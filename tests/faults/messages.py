"""Between broker and workers: delivers each message once, twice, late, or in another order."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections import Counter
from types import TracebackType

from redis import Redis

from tests.support.queues import lists

DELIVERED = "delivered"
"""The queue that workers of a test with a shuffler take them from."""


class MessageShuffler:
    """Carries messages from one queue to the other while it is entered; keeps a copy of each."""

    def __init__(self, redis_url: str, seed: int) -> None:
        self.redis = Redis.from_url(redis_url)
        self.chance = random.Random(seed)
        self.messages: list[bytes] = []
        self.delivered: Counter[str] = Counter()
        """Number of deliveries of each task's messages."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> MessageShuffler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.redis.close()

    def deliver(self, message: bytes) -> None:
        envelope = json.loads(message)
        envelope["properties"]["delivery_tag"] = str(uuid.uuid4())  # a copy is acknowledged by this
        self.delivered[envelope["headers"]["task"].removeprefix("morango_celery.")] += 1
        self.redis.lpush(DELIVERED, json.dumps(envelope))

    def _work(self) -> None:
        bag: list[bytes] = []
        while not self._over.is_set():
            found = self.redis.brpop(lists(), timeout=0.05)
            if found is not None:
                message: bytes = found[1]  # type: ignore[assignment]
                self.messages.append(message)
                bag += [message] * self.chance.choice((1, 2, 2, 3))
                if self.chance.random() < 0.5:
                    continue  # let some gather, so that there is an order to change
            self.chance.shuffle(bag)
            now, bag = bag[: len(bag) // 2 + 1], bag[len(bag) // 2 + 1 :]
            for message in now:
                self.deliver(message)
