"""Backend in Redis, which removes expired payloads by itself. No other module speaks to Redis."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from morango_celery.errors import PayloadStoreUnavailableError
from morango_celery.payloads.backend import OnPruned, Pruned

PREFIX = "morango_celery:payload:"

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""Time for an answer, unless the URL sets another. A Redis that takes longer counts as unreachable."""

# In two commands, one sender could shorten a time to live that another has just extended
_EXTEND_TTL = """
local missing = {}
for number, key in ipairs(KEYS) do
    local left = redis.call('PTTL', key)
    if left == -2 then
        missing[#missing + 1] = number
    elseif left ~= -1 and left < tonumber(ARGV[1]) then
        redis.call('PEXPIRE', key, ARGV[1])
    end
end
return missing
"""
_PUT = """
for number, key in ipairs(KEYS) do
    local left = redis.call('PTTL', key)
    if left == -2 then
        redis.call('SET', key, ARGV[number + 1], 'PX', ARGV[1])
    elseif left ~= -1 and left < tonumber(ARGV[1]) then
        redis.call('PEXPIRE', key, ARGV[1])
    end
end
"""


class RedisBackend:
    """Backend with a connection per thread: taking one from a pool takes as long as Redis's answer."""

    is_in_process = False

    def __init__(self, location: str) -> None:
        """Connect on first use.

        :param location: the URL of a Redis that evicts nothing: with ``maxmemory-policy noeviction``
        """
        self._location = location
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._of_thread = threading.local()

    @property
    def _client(self) -> Redis:
        client: Redis | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = self._of_thread.client = Redis.from_url(
                self._location,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                single_connection_client=True,
            )
        return client

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        asked = list(keys)
        with _outages():
            missing: Sequence[int] = self._client.register_script(_EXTEND_TTL)(
                _names(asked), [_milliseconds(seconds)]
            )
        return {asked[number - 1] for number in missing}

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        milliseconds = _milliseconds(seconds)
        with _outages():
            if len(blobs) == 1:  # most are new, and a plain command is quicker than a script
                ((key, blob),) = blobs.items()
                if self._client.set(PREFIX + key, blob, px=milliseconds, nx=True):
                    return
            self._client.register_script(_PUT)(_names(blobs), [milliseconds, *blobs.values()])

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        with _outages():
            names = _names(keys)
            found = [self._client.get(names[0])] if len(names) == 1 else self._client.mget(names)
        return {key: blob for key, blob in zip(keys, found, strict=True) if isinstance(blob, bytes)}

    def delete(self, sha256: str) -> int:
        """Remove a payload. Cost: a scan of all keys of this Redis."""
        with _outages():
            return sum(self._client.delete(name) for name in self._client.scan_iter(f"{PREFIX}{sha256}*"))

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        return Pruned(0, 0)


def _names(keys: Collection[str]) -> list[str]:
    return [PREFIX + key for key in keys]


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise PayloadStoreUnavailableError(
            f"The Redis that payloads are in can't be reached: {error}"
        ) from error
    except RedisError as error:
        raise PayloadStoreUnavailableError(f"The Redis that payloads are in refuses: {error}") from error
