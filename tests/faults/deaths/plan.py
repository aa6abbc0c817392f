"""Plan of deaths: written by a test, read by its workers, kept in Redis because it outlives these."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

from redis import Redis

PLAN, FIRED, RECORDED, EVENTS = "deaths:plan", "deaths:fired", "deaths:recorded", "deaths:events"
DELIVERED = "deaths:delivered"


def is_statement(what: str) -> bool:
    return what not in ("COMMIT", "end of the task") and not what.startswith("message ")


class Event(NamedTuple):
    """Something that a task does."""

    task: str
    """Its name, and a batch's stage."""
    number: int
    """Counted from 1 in the task."""
    what: str
    """The statement, or another word for it."""

    @property
    def is_statement(self) -> bool:
        return is_statement(self.what)


@dataclass(frozen=True)
class Death:
    """A point of a run's task at which its process is killed, once."""

    task: str
    event: int
    """Number of the event before which, or in the middle of which, it dies; or of the next statement."""
    whole_worker: bool = False
    """Its worker and all other processes of its pool, too."""
    inside: bool = False
    """While the server executes the statement; it does so to the end, for it can't know."""


def client() -> Redis:
    return Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


def plan(run_id: int, death: Death) -> None:
    with client() as redis:
        redis.hset(PLAN, str(run_id), json.dumps(asdict(death)))


def record(run_id: int) -> None:
    """Have the events of the run's tasks recorded."""
    with client() as redis:
        redis.sadd(RECORDED, str(run_id))


def recorded() -> list[Event]:
    with client() as redis:
        return [Event(*json.loads(text)) for text in redis.lrange(EVENTS, 0, -1)]


def fired() -> list[tuple[Death, str]]:
    """Return the deaths that have happened, each with the event of that moment."""
    with client() as redis:
        entries: Iterable[str] = redis.lrange(FIRED, 0, -1)
    return [(Death(**death), what) for death, what in map(json.loads, entries)]


def deliveries(run_id: int) -> int:
    """Return the number of the run's messages that workers have received, duplicates included."""
    with client() as redis:
        return int(redis.hget(DELIVERED, str(run_id)) or 0)


class Watched:
    """A task that is being carried out."""

    def __init__(self, run_id: int, task: str) -> None:
        self.run_id = run_id
        self.task = task
        self.events = 0
        self.redis = client()
        text = self.redis.hget(PLAN, str(run_id))
        self.death = Death(**json.loads(text)) if text else None
        self.is_recorded = bool(self.redis.sismember(RECORDED, str(run_id)))

    @classmethod
    def of(cls, name: str, arguments: list[object]) -> Watched | None:
        """None when it is no task of a run."""
        from morango_celery.models import Batch

        name = name.removeprefix("morango_celery.")
        if name == "start_run" and arguments and isinstance(arguments[0], int):
            return cls(arguments[0], name).delivered()
        if name == "deserialize_batch" and arguments and isinstance(arguments[0], int):
            batch = Batch.objects.filter(pk=arguments[0]).first()
            if batch is None:
                return None
            return cls(batch.run_id, f"{name} {batch.stage}").delivered()
        return None

    def delivered(self) -> Watched:
        """Count the message that the task has come with."""
        self.redis.hincrby(DELIVERED, str(self.run_id), 1)
        return self

    def before(self, what: str) -> bool:
        """Count an event, and die if that is the plan.

        :returns: whether to `die` in the middle of it
        """
        self.events += 1
        if self.is_recorded:
            self.redis.rpush(EVENTS, json.dumps(Event(self.task, self.events, what)))
        death = self.death
        if death is None or death.task != self.task or self.events < death.event:
            return False
        if death.inside and not is_statement(what):
            return False  # a fresh process has more events: it dies in the statement that follows
        if not self.redis.hdel(PLAN, str(self.run_id)):
            return False  # another process has
        if not death.inside:
            self.die(what)
        return death.inside

    def die(self, what: str) -> None:
        """Die as planned."""
        assert self.death is not None
        self.redis.rpush(FIRED, json.dumps([asdict(self.death), what]))
        if self.death.whole_worker:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
