"""Databases of the demo's server: on servers of its own, or on those that the environment names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg2
from redis import Redis, RedisError

from worker import services
from worker.demo.processes import StepError


@contextmanager
def empty_postgres() -> Iterator[str]:
    """Yield the URL of an empty PostgreSQL database, and remove it afterwards.

    It is on a durable server of its own, or on the server that DATABASE_URL names.
    """
    with services.postgres(durable=True) as url:
        if not os.environ.get("DATABASE_URL"):
            yield url
            return
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres"):
            raise StepError(
                "DATABASE_URL names no PostgreSQL server. Unset it, and the demo starts one of its own."
            )
        name = f"morango_celery_demo_{secrets.token_hex(4)}"
        _execute(url, f'CREATE DATABASE "{name}"')
        try:
            yield parts._replace(path=f"/{name}").geturl()
        finally:
            _execute(url, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def empty_redis() -> Iterator[str]:
    """Yield the URL of an empty Redis database, on a server of its own or the one that REDIS_URL names.

    :raises StepError: that database has keys; our workers would take another deployment's messages
    """
    with services.redis() as url:
        if not os.environ.get("REDIS_URL"):
            yield url
            return
        with Redis.from_url(url) as client:
            try:
                if client.dbsize():
                    raise StepError(
                        "The Redis database that REDIS_URL names has keys; the demo wants an empty one. "
                        "Unset REDIS_URL, and the demo starts its own."
                    )
            except RedisError as error:
                raise StepError(f"The Redis that REDIS_URL names does not answer: {error}") from error
            try:
                yield url
            finally:
                client.flushdb()


def _execute(url: str, statement: str) -> None:
    try:
        connection = psycopg2.connect(url)
    except psycopg2.OperationalError as error:
        raise StepError(f"The PostgreSQL that DATABASE_URL names does not answer: {error}") from error
    connection.autocommit = True  # databases are not made in transactions
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
