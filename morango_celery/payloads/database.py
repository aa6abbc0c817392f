"""Backend in a table of the database. A payload takes part in the open transaction, if there is one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import InterfaceError, OperationalError, connections, models, router, transaction
from django.db.models import F
from django.db.models.functions import Greatest, Length

from morango_celery import clock
from morango_celery.django_compat import delete_unread
from morango_celery.errors import PayloadStoreUnavailableError
from morango_celery.payloads.backend import OnPruned, Pruned
from morango_celery.payloads.models import Payload
from morango_celery.stream import chunked

TTL_MARGIN = 0.1
"""Fraction by which a time to live is prolonged. So the row of a value that is sent again and again is seldom
updated, and long transactions that send it don't wait for each other."""

ROWS_PER_INSERT = 4
ROWS_PER_DELETE = 500


class DatabaseBackend:
    is_in_process = False

    def extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        with _outages():
            return self._extend_ttl(keys, seconds)

    def _extend_ttl(self, keys: Collection[str], seconds: float) -> set[str]:
        until, parameter = clock.now_in_sql(seconds, _alias())
        found = dict(_select(f"expires_at < {until}", keys, parameter))
        missing = set(keys) - found.keys()
        for key in sorted(key for key, is_short in found.items() if is_short):
            longer = Greatest(F("expires_at"), clock.now(_with_margin(seconds), _alias()))
            if not Payload.objects.filter(key=key).update(expires_at=longer):
                missing.add(key)  # pruned since it was found
        return missing

    def put(self, blobs: Mapping[str, bytes], seconds: float) -> None:
        """Store blobs in the order of their keys, so that two transactions can't deadlock."""
        keys = sorted(blobs)
        with _outages():
            while keys and _insert([(key, blobs[key]) for key in keys], seconds) < len(keys):
                missing = self._extend_ttl(blobs, seconds)  # others' rows may expire sooner, or be gone
                keys = [key for key in keys if key in missing]

    def get(self, keys: Collection[str]) -> dict[str, bytes]:
        with _outages():
            return {key: bytes(data) for key, data in _select("data", keys)}

    def delete(self, sha256: str) -> int:
        with _outages():
            return self._delete(Payload.objects.filter(key__startswith=sha256))

    def prune(self, on_progress: OnPruned | None = None) -> Pruned:
        blobs = size_bytes = 0
        with _outages():
            now = clock.now(using=_alias())
            over = Payload.objects.filter(expires_at__lt=now).order_by("key")
            last = ""
            while page := dict(
                over.filter(key__gt=last)
                .annotate(size=Length("data"))
                .values_list("key", "size")[:ROWS_PER_DELETE]
            ):
                last = max(page)
                blobs += self._delete(Payload.objects.filter(key__in=page, expires_at__lt=now))
                size_bytes += sum(page.values())
                if on_progress is not None:
                    on_progress(Pruned(blobs, size_bytes))
        return Pruned(blobs, size_bytes)

    @staticmethod
    def _delete(payloads: models.QuerySet[Payload]) -> int:
        """Delete rows in one statement. PostgreSQL checks its condition again on a prolonged row.

        Django's ``delete()`` would first read the rows, if anything listens to signals of deletion.
        """
        return delete_unread(payloads, _alias())


def _insert(rows: Sequence[tuple[str, bytes]], seconds: float) -> int:
    """Insert those that aren't there; returns how many. All of them, or none.

    Without Django's ``bulk_create``, which can't tell how many, and takes as long as the insert.
    """
    inserted = 0
    now, at_once = clock.now_in_sql(using=_alias())
    until, later = clock.now_in_sql(_with_margin(seconds), _alias())
    values = f"(%s, %s, {now}, {until})"
    with transaction.atomic(using=_alias()), connections[_alias()].cursor() as cursor:
        for chunk in chunked(rows, ROWS_PER_INSERT):
            cursor.execute(
                f'INSERT INTO {Payload._meta.db_table} ("key", "data", "created_at", "expires_at")'  # noqa: S608  (ours)
                f" VALUES {', '.join([values] * len(chunk))} ON CONFLICT DO NOTHING",
                [value for key, data in chunk for value in (key, memoryview(data), at_once, later)],
            )
            inserted += cursor.rowcount
    return inserted


def _select(expression: str, keys: Collection[str], *parameters: Any) -> list[tuple[str, Any]]:
    """Return the keys of the stored payloads among these, each with the value of an expression.

    It does without Django's query: building one takes longer than everything else in reading a small value.
    """
    if not keys:
        return []
    marks = ", ".join(["%s"] * len(keys))
    with connections[_alias()].cursor() as cursor:
        cursor.execute(
            f'SELECT "key", {expression} FROM {Payload._meta.db_table} WHERE "key" IN ({marks})',  # noqa: S608  (ours)
            [*parameters, *keys],
        )
        found: list[tuple[str, Any]] = cursor.fetchall()
    return found


def _with_margin(seconds: float) -> float:
    return seconds * (1 + TTL_MARGIN)


def _alias() -> str:
    alias: str = router.db_for_write(Payload)
    return alias


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        connection = connections[_alias()]
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()  # or the next one here would get it too
        raise PayloadStoreUnavailableError(
            f"The database that payloads are in can't be used: {error}"
        ) from error
