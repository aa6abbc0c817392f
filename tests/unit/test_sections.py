"""The settings of the apps beside the core: sections of their own, and checked as the core's are."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from morango_celery.conf import problems as problems_of_core
from morango_celery.oplog import conf as oplog
from morango_celery.payloads import conf as payloads

OPLOG, PAYLOADS = "MORANGO_CELERY_OPLOG", "MORANGO_CELERY_PAYLOADS"
LABELS = 'must be a list of model labels such as "school.Learner", not '

DEFAULTS: dict[Any, dict[str, Any]] = {
    oplog: {
        "MODELS": (),
        "FILE": "",
        "ROTATE_BYTES": 64 * 1024 * 1024,
        "NATURAL_KEYS": False,
        "INGEST_MODELS": (),
    },
    payloads: {
        "BACKEND": "database",
        "LOCATION": "",
        "MIN_BYTES": 4 * 1024,
        "MAX_MESSAGE_BYTES": 128 * 1024,
        "TTL_SECONDS": 7 * 24 * 60 * 60,
    },
}


@pytest.mark.parametrize("section", DEFAULTS, ids=[OPLOG, PAYLOADS])
def test_without_the_dict_all_defaults_hold(settings: Settings, section: Any) -> None:
    for name in (OPLOG, PAYLOADS):
        setattr(settings, name, {})
        delattr(settings, name)
    assert {name: getattr(section.settings, name) for name in DEFAULTS[section]} == DEFAULTS[section]
    assert section.problems() == []
    with pytest.raises(AttributeError):
        _ = section.settings.MODE


def test_section_is_read_live(settings: Settings) -> None:
    for size in (7, 8):
        settings.MORANGO_CELERY_PAYLOADS = {"MIN_BYTES": size}
        assert size == payloads.settings.MIN_BYTES


@pytest.mark.parametrize(
    ("name", "configured", "problem"),
    [
        (OPLOG, {"MODELS": ["Learner"], "FILE": "x"}, f"['MODELS'] {LABELS}['Learner']."),
        (OPLOG, {"FILE": None}, "['FILE'] must be a path, as a text, not None."),
        (OPLOG, {"ROTATE_BYTES": 0}, "['ROTATE_BYTES'] must be a whole number of bytes above 0, not 0."),
        (OPLOG, {"INGEST_MODELS": "school.Learner"}, f"['INGEST_MODELS'] {LABELS}'school.Learner'."),
        (OPLOG, {"NATURAL_KEYS": 1}, "['NATURAL_KEYS'] must be True or False, not 1."),
        (OPLOG, {"MODELS": ["school.Learner"]}, " has MODELS, but no FILE to record their changes in."),
        (OPLOG, {"INGEST_MODEL": []}, " has an unknown key 'INGEST_MODEL'. Did you mean 'INGEST_MODELS'?"),
        (OPLOG, [], " must be a dict of settings, not list."),
        (PAYLOADS, {"BACKEND": "disk"}, '[\'BACKEND\'] must be "database", "redis", "files" or "memory"'),
        (PAYLOADS, {"BACKEND": "redis"}, " has BACKEND 'redis', but no LOCATION"),
        (PAYLOADS, {"BACKEND": "files"}, " has BACKEND 'files', but no LOCATION"),
        (PAYLOADS, {"LOCATION": None}, "['LOCATION'] must be a URL or a path, as a text"),
        *(
            (PAYLOADS, {f"{key}_BYTES": 0}, f"['{key}_BYTES'] must be a whole number")
            for key in ("MIN", "MAX_MESSAGE")
        ),
        (PAYLOADS, {"TTL_SECONDS": 0}, "['TTL_SECONDS'] must be a whole number of seconds above 0"),
        (PAYLOADS, None, " must be a dict of settings, not NoneType."),
    ],
)
def test_nonsense_in_a_section_is_an_error_of_its_own_app(
    settings: Settings, name: str, configured: Any, problem: str
) -> None:
    setattr(settings, name, configured)
    errors = [error for error in checks.run_checks(tags=["morango_celery"]) if error.level > checks.INFO]
    assert [error.id for error in errors] == ["morango_celery.E001"]
    assert errors[0].msg.startswith(name + problem)
    assert problems_of_core() == []


@pytest.mark.parametrize(("name", "key"), [(OPLOG, "INGEST_MODELS"), (PAYLOADS, "BACKEND")])
def test_no_section_has_keys_of_another(settings: Settings, name: str, key: str) -> None:
    settings.MORANGO_CELERY = {key: []}
    (problem,) = problems_of_core()
    assert problem.startswith(f"MORANGO_CELERY has an unknown key {key!r}.")
