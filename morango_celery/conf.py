"""The settings: one dict ``MORANGO_CELERY`` in Django's settings, read live, with defaults here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connection, router

from morango_celery.errors import InvalidSettingError

AWAIT: Literal["await"] = "await"
DETACH: Literal["detach"] = "detach"

PAYLOAD_BACKENDS = ("database", "redis", "files", "memory")


class _Settings:
    """Each attribute is a key of ``MORANGO_CELERY``; its value here is the default."""

    MODE: str = AWAIT
    """``await``: a sync's deserializing stage completes with its run. ``detach``: at once."""

    BATCH_SIZE_RECORDS: int | None = None
    """How many records one Celery task deserializes at most. None: 2,000; on SQLite, where each batch waits
    for the disk, 5,000."""

    BATCH_SIZE_BYTES: int = 8 * 1024 * 1024
    """How many bytes of JSON these records have together at most: of large ones, a task takes fewer. A record
    that is larger than this is a task of its own. What can only be saved along with them, where foreign keys
    form a cycle, may have as many again."""

    IN_PROCESS: bool | None = None
    """Run syncs in the process that received them. None: only on SQLite, which has one writer."""

    IN_PROCESS_CONNECTIONS: int = 2
    """How many batches a run in process executes at the same time, each on a connection of its own. On SQLite
    it is one."""

    SAVE_EACH: tuple[str, ...] = ()
    """Labels (``app.Model``) of models whose ``save()`` must see each row in the database."""

    EXCLUSIVE_MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of models whose ``save()`` reads or writes other rows, as one that counts in
    another: their records are saved one by one, and never by two processes at a time. Models of django-mptt
    need not be named."""

    SYNCHRONOUS_COMMIT: bool = True
    """False lets PostgreSQL lose the last batches in a power cut; they are then run again."""

    RESEND_AFTER_SECONDS: int = 900
    """Recovery sends a message again that no worker has taken for this long. Each worker looks fifteen times
    as often. What was begun, and is in nobody's hands, counts as lost after 15 seconds, or a third of this. A
    run in process is given up after four times as long."""

    MAX_ATTEMPTS: int = 3
    """How many workers a batch may cost before it is split, and a record before it is in error."""

    SAME_ERROR_LIMIT_RECORDS: int = 100
    """A run fails when all records of a batch, so many or more, fail with one and the same error that isn't
    about what is in them: a service that a model's code asks is down, say. 0: never."""

    OPLOG_MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of models whose changes are recorded in OPLOG_FILE."""

    OPLOG_FILE: str = ""
    """Path of the log that changes are recorded in."""

    OPLOG_ROTATE_BYTES: int = 64 * 1024 * 1024
    """How large that file may become before it is given another name, and a new one is begun."""

    OPLOG_NATURAL_KEYS: bool = False
    """Record natural keys in place of primary keys, where models have them."""

    OPLOG_INGEST_MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of models whose objects may be ingested from a log. With none, nothing is."""

    PAYLOAD_BACKEND: str = "database"
    """Where large arguments of a `PayloadTask` are kept: ``database``, ``redis``, ``files`` or ``memory``."""

    PAYLOAD_LOCATION: str = ""
    """Of ``redis`` its URL, of ``files`` a folder that all machines see; the others need none."""

    PAYLOAD_MIN_BYTES: int = 4 * 1024
    """An argument of so many bytes, as JSON, or more travels as a reference."""

    PAYLOAD_MESSAGE_BYTES: int = 128 * 1024
    """What all arguments of a message may have together, those of linked tasks included. Above it smaller
    ones are stored too, the largest first; a message that is still too large is refused when it is sent."""

    PAYLOAD_CHUNK_BYTES: int = 1024 * 1024
    """A value that is larger is stored in parts of this size."""

    PAYLOAD_WARN_BYTES: int = 10 * 1024 * 1024
    """A value of so many bytes or more is stored with a warning in the log."""

    PAYLOAD_COMPRESS_BYTES: int = 8 * 1024
    """A part of a value of so many bytes or more is compressed, if that makes it smaller."""

    PAYLOAD_CACHE_BYTES: int = 32 * 1024 * 1024
    """How much of what it has read a process keeps in memory; 0 for nothing."""

    PAYLOAD_LIFETIME_SECONDS: int = 7 * 24 * 60 * 60
    """How long a value is kept after the time at which the last message that refers to it is due. It has to
    be longer than any message waits in a queue."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        return _configured().get(name, super().__getattribute__(name))


def _configured() -> Mapping[str, Any]:
    configured = getattr(django_settings, "MORANGO_CELERY", {})
    if not isinstance(configured, Mapping):
        raise InvalidSettingError(
            f"MORANGO_CELERY must be a dict of settings, not {type(configured).__name__}."
        )
    return configured


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _not_negative(value: object) -> bool:
    return _positive(value) or (value == 0 and isinstance(value, int) and not isinstance(value, bool))


def _labels(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(label, str) and label.count(".") == 1 for label in value
    )


_BYTES_RULE = "must be a whole number of bytes above 0"
_LABELS_RULE = 'must be a list of model labels such as "school.Learner"'

_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "MODE": (lambda value: value in (AWAIT, DETACH), 'must be "await" or "detach"'),
    "BATCH_SIZE_RECORDS": (
        lambda value: value is None or (_positive(value) and value <= 50_000),
        "must be a whole number of records from 1 to 50000, or None",
    ),
    "BATCH_SIZE_BYTES": (_positive, _BYTES_RULE),
    "IN_PROCESS": (lambda value: value is None or isinstance(value, bool), "must be True, False or None"),
    "IN_PROCESS_CONNECTIONS": (
        lambda value: _positive(value) and value <= 100,
        "must be a whole number of connections from 1 to 100",
    ),
    "SAVE_EACH": (_labels, _LABELS_RULE),
    "EXCLUSIVE_MODELS": (_labels, _LABELS_RULE),
    "SYNCHRONOUS_COMMIT": (lambda value: isinstance(value, bool), "must be True or False"),
    "RESEND_AFTER_SECONDS": (_positive, "must be a whole number of seconds above 0"),
    "MAX_ATTEMPTS": (
        lambda value: _positive(value) and value <= 100,
        "must be a whole number of attempts from 1 to 100",
    ),
    "SAME_ERROR_LIMIT_RECORDS": (_not_negative, "must be a whole number of records, 0 or more"),
    "OPLOG_MODELS": (_labels, _LABELS_RULE),
    "OPLOG_FILE": (lambda value: isinstance(value, str), "must be a path, as a text"),
    "OPLOG_ROTATE_BYTES": (_positive, _BYTES_RULE),
    "OPLOG_INGEST_MODELS": (_labels, _LABELS_RULE),
    "OPLOG_NATURAL_KEYS": (lambda value: isinstance(value, bool), "must be True or False"),
    "PAYLOAD_BACKEND": (
        lambda value: value in PAYLOAD_BACKENDS,
        'must be "database", "redis", "files" or "memory"',
    ),
    "PAYLOAD_LOCATION": (lambda value: isinstance(value, str), "must be a URL or a path, as a text"),
    "PAYLOAD_MIN_BYTES": (_positive, _BYTES_RULE),
    "PAYLOAD_MESSAGE_BYTES": (_positive, _BYTES_RULE),
    "PAYLOAD_CHUNK_BYTES": (
        lambda value: _positive(value) and 1024 <= value <= 256 * 1024 * 1024,
        "must be a whole number of bytes from 1024 (1 KiB) to 268435456 (256 MiB)",
    ),
    "PAYLOAD_WARN_BYTES": (_positive, _BYTES_RULE),
    "PAYLOAD_COMPRESS_BYTES": (_positive, _BYTES_RULE),
    "PAYLOAD_CACHE_BYTES": (_not_negative, "must be a whole number of bytes, 0 or more"),
    "PAYLOAD_LIFETIME_SECONDS": (_positive, "must be a whole number of seconds above 0"),
}


def problems() -> list[str]:
    """What is wrong with ``settings.MORANGO_CELERY``, a sentence each; empty when all is well."""
    try:
        configured = _configured()
    except InvalidSettingError as error:
        return [str(error)]
    found = []
    for key, value in configured.items():
        if key not in _RULES:
            close = difflib.get_close_matches(str(key), _RULES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known keys: {', '.join(_RULES)}."
            found.append(f"MORANGO_CELERY has an unknown key {key!r}.{hint}")
            continue
        valid, rule = _RULES[key]
        if not valid(value):
            found.append(f"MORANGO_CELERY[{key!r}] {rule}, not {value!r}.")
    if configured.get("OPLOG_MODELS") and not configured.get("OPLOG_FILE"):
        found.append("MORANGO_CELERY has OPLOG_MODELS, but no OPLOG_FILE to record their changes in.")
    if configured.get("PAYLOAD_BACKEND") in ("redis", "files") and not configured.get("PAYLOAD_LOCATION"):
        found.append(
            f"MORANGO_CELERY has PAYLOAD_BACKEND {configured['PAYLOAD_BACKEND']!r}, but no PAYLOAD_LOCATION "
            "that says where that is."
        )
    return found


def replica_problems() -> list[str]:
    """Return a sentence for each model of a sync that is read from another database than it is written to.

    These are Morango's, this app's and those of profiles. What a replica hasn't heard of yet looks as if it
    weren't there: records would stay dirty in a completed run.
    """
    if not django_settings.DATABASE_ROUTERS:
        return []
    from morango.models.core import SyncableModel

    return [
        f"DATABASE_ROUTERS have {model._meta.label} written to {write!r} and read from {read!r}: what was "
        "just written isn't found there."
        for model in apps.get_models()
        if model._meta.app_label in ("morango", "morango_celery") or issubclass(model, SyncableModel)
        for read, write in [(router.db_for_read(model), router.db_for_write(model))]
        if read != write
    ]


def require_valid() -> None:
    """Refuse to work on nonsense: system checks don't run in every process.

    :raises InvalidSettingError: names every wrong key, and every model that is read from a replica
    """
    found = problems() or replica_problems()
    if found:
        raise InvalidSettingError(" ".join(found))


settings = _Settings()


def batch_size_records() -> int:
    """As configured, or as the database needs."""
    return settings.BATCH_SIZE_RECORDS or (5000 if connection.vendor == "sqlite" else 2000)
