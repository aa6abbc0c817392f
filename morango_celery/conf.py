"""Sections of Django's settings, read live, and the section of syncs and runs, ``MORANGO_CELERY``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from django.apps import apps
from django.conf import settings as django_settings
from django.db import router
from typing_extensions import override

from morango_celery.db.dialect import dialect
from morango_celery.errors import InvalidSettingError

AWAIT: Literal["await"] = "await"
DETACH: Literal["detach"] = "detach"
COMPARE: Literal["compare"] = "compare"

Rule = tuple[Callable[[Any], bool], str]
"""Test of a setting's value, and the same rule in words."""


class Section:
    """Dict in Django's settings. Each attribute of the class is a key, and its value the default."""

    _NAME: str
    _RULES: Mapping[str, Rule]

    @override
    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        return self._configured().get(name, super().__getattribute__(name))

    def _configured(self) -> Mapping[str, Any]:
        configured = getattr(django_settings, self._NAME, {})
        if not isinstance(configured, Mapping):
            raise InvalidSettingError(
                f"{self._NAME} must be a dict of settings, not {type(configured).__name__}."
            )
        return configured

    def _contradictions(self, configured: Mapping[str, Any]) -> Iterator[str]:
        """Yield contradictions between values, a sentence each."""
        yield from ()


def problems_of(section: Section) -> list[str]:
    """Return the faults of a section of the settings, a sentence each."""
    name, rules = section._NAME, section._RULES
    try:
        configured = section._configured()
    except InvalidSettingError as error:
        return [str(error)]
    found = []
    for key, value in configured.items():
        if key not in rules:
            close = difflib.get_close_matches(str(key), rules, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known keys: {', '.join(rules)}."
            found.append(f"{name} has an unknown key {key!r}.{hint}")
            continue
        valid, rule = rules[key]
        if not valid(value):
            found.append(f"{name}[{key!r}] {rule}, not {value!r}.")
    return [*found, *section._contradictions(configured)]


def positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def not_negative(value: object) -> bool:
    return positive(value) or (value == 0 and isinstance(value, int) and not isinstance(value, bool))


def labels(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(label, str) and label.count(".") == 1 for label in value
    )


BYTES_RULE = "must be a whole number of bytes above 0"
LABELS_RULE = 'must be a list of model labels such as "school.Learner"'


class _Settings(Section):
    """Section of syncs and runs."""

    MODE: str = AWAIT
    """``await``: a sync's deserializing stage completes with its run. ``detach``: it completes at once.
    ``compare``: Morango's own operation has the stage; workers compare a share of syncs with ours later."""

    COMPARE_SHARE: float = 0.01
    """Share of syncs that are compared in mode ``compare``, from 0 to 1. A comparison keeps syncs of the same
    partitions waiting for seconds, for 60 at most."""

    REQUEST_WAIT_SECONDS: float = 0.8
    """Time that a request waits for its sync's run before it answers that the run goes on: a client pauses
    before it asks again. It doesn't wait in mode ``detach``, nor in an open transaction
    (``ATOMIC_REQUESTS``), nor while workers have other runs to do. 0: never."""

    BATCH_SIZE_RECORDS: int | None = None
    """Limit on the records of a batch, which one Celery task deserializes. None: 2,000; on SQLite, where
    each batch waits for the disk, 5,000."""

    BATCH_SIZE_BYTES: int = 8 * 1024 * 1024
    """Limit on the bytes of JSON in a batch: a batch of large records has fewer. A record that is larger is a
    batch of its own. Records of a cycle of foreign keys, which can only be saved together, may
    have as many bytes again."""

    IN_PROCESS: bool | None = None
    """Run syncs in the process that received them. None: only on SQLite, which has one writer."""

    IN_PROCESS_CONCURRENCY: int = 2
    """Number of batches that a run in process executes at the same time, each on a connection of its own. On
    SQLite it is one."""

    SAVE_INDIVIDUALLY: tuple[str, ...] = ()
    """Labels (``app.Model``) of models with a ``save()`` that must see each row in the database."""

    EXCLUSIVE_MODELS: tuple[str, ...] = ()
    """Labels (``app.Model``) of models with a ``save()`` that reads or writes other rows, a counter for
    example. Their records are saved one by one, and never by two processes at a time. Models of django-mptt
    need not be named."""

    USE_EQUIVALENTS: bool = True
    """Carry out declared equivalents of models' own code for a whole batch, where they match that code.
    False: the code itself always runs."""

    SYNCHRONOUS_COMMIT: bool = True
    """False lets PostgreSQL lose the last batches in a power cut; they are then run again."""

    STALLED_AFTER_SECONDS: int = 900
    """Time after which recovery sends a message again that no worker has taken. Each worker looks fifteen
    times as often. Work that was begun, and that no process holds, counts as lost after 15 seconds, or a
    third of this. A run in process is given up after four times as long."""

    MAX_ATTEMPTS: int = 3
    """Number of workers that a batch may end before it is split, and a record before it is in error."""

    SAME_ERROR_LIMIT_RECORDS: int = 100
    """Number of records in a batch from which the run fails, if all of them fail with one error that isn't
    about their content: a service that a model's code asks is down, for example. 0: never."""

    PRUNE_AFTER_DAYS: int | None = None
    """Age from which recovery deletes ended runs with their batches, and comparisons, as
    ``manage.py prune_runs`` does. None: they are kept."""

    _NAME = "MORANGO_CELERY"
    _RULES = {
        "MODE": (
            lambda value: value in (AWAIT, DETACH, COMPARE),
            'must be "await", "detach" or "compare"',
        ),
        "COMPARE_SHARE": (
            lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1,
            "must be a number from 0 to 1",
        ),
        "REQUEST_WAIT_SECONDS": (
            lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 30,
            "must be a number of seconds from 0 to 30",
        ),
        "BATCH_SIZE_RECORDS": (
            lambda value: value is None or (positive(value) and value <= 50_000),
            "must be a whole number of records from 1 to 50000, or None",
        ),
        "BATCH_SIZE_BYTES": (positive, BYTES_RULE),
        "IN_PROCESS": (lambda value: value is None or isinstance(value, bool), "must be True, False or None"),
        "IN_PROCESS_CONCURRENCY": (
            lambda value: positive(value) and value <= 100,
            "must be a whole number of connections from 1 to 100",
        ),
        "SAVE_INDIVIDUALLY": (labels, LABELS_RULE),
        "EXCLUSIVE_MODELS": (labels, LABELS_RULE),
        "USE_EQUIVALENTS": (lambda value: isinstance(value, bool), "must be True or False"),
        "SYNCHRONOUS_COMMIT": (lambda value: isinstance(value, bool), "must be True or False"),
        "STALLED_AFTER_SECONDS": (positive, "must be a whole number of seconds above 0"),
        "MAX_ATTEMPTS": (
            lambda value: positive(value) and value <= 100,
            "must be a whole number of attempts from 1 to 100",
        ),
        "SAME_ERROR_LIMIT_RECORDS": (not_negative, "must be a whole number of records, 0 or more"),
        "PRUNE_AFTER_DAYS": (
            lambda value: value is None or (positive(value) and value <= 36_500),
            "must be a whole number of days from 1 to 36500, or None",
        ),
    }


def problems() -> list[str]:
    """Return the faults of ``settings.MORANGO_CELERY``, a sentence each."""
    return problems_of(settings)


def replica_problems() -> list[str]:
    """Return a sentence for each synced model that is read from another database than it is written to.

    These are Morango's models, this app's and those of profiles. A replica lags behind, and rows that it
    lacks seem not to exist: records would stay dirty in a completed run.
    """
    if not django_settings.DATABASE_ROUTERS:
        return []
    from morango.models.core import SyncableModel

    return [
        f"DATABASE_ROUTERS have {model._meta.label} written to {write!r} and read from {read!r}: rows "
        "that were just written aren't found there."
        for model in apps.get_models()
        if model.__module__.split(".")[0] in ("morango", "morango_celery") or issubclass(model, SyncableModel)
        for read, write in [(router.db_for_read(model), router.db_for_write(model))]
        if read != write
    ]


def require_valid() -> None:
    """Refuse to work with faulty settings: system checks don't run in every process.

    :raises InvalidSettingError: its message names every wrong key, and every model that is read from a
        replica
    """
    found = problems() or replica_problems()
    if found:
        raise InvalidSettingError(" ".join(found))


settings = _Settings()


def batch_size_records() -> int:
    """Return the configured size, or the database's default."""
    return settings.BATCH_SIZE_RECORDS or (5000 if dialect().has_one_writer else 2000)
