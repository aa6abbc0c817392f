"""System checks of the log's settings, and of the models that it may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.base_session import AbstractBaseSession
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004  (as Django names it)
from django.db.models import Model

from morango_celery.checks.models import unknown_models
from morango_celery.oplog.conf import problems, settings
from morango_celery.oplog.rows import ingested_models

OF_THIS_PROJECT = "morango_celery"
POWERFUL_APPS = {
    "django.contrib.admin": "what the admin shows of who did what",
    "django.contrib.auth": "who may do what here",
    "django.contrib.contenttypes": "which model a permission is about",
    "django.contrib.sessions": "who is logged in here",
    "morango": "what Morango syncs, and whom it trusts",
    OF_THIS_PROJECT: "what is deserialized, recorded and ingested here",
}
"""Apps with rows that decide about more than themselves, and their subjects."""


@register("morango_celery")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per unknown name or unusable value in ``settings.MORANGO_CELERY_OPLOG``."""
    return [Error(text, id="morango_celery.E001") for text in problems()]


@register("morango_celery")
def check_named_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one error per label in ``MODELS`` or ``INGEST_MODELS`` that no installed model has."""
    if problems():
        return []
    return unknown_models("MORANGO_CELERY_OPLOG", settings, ("MODELS", "INGEST_MODELS"))


@register("morango_celery")
def check_powerful_models(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one warning per ingested model that gives a log's author power over more than its objects."""
    if problems():
        return []
    return [
        Warning(
            f"MORANGO_CELERY_OPLOG['INGEST_MODELS'] lets a log change {model._meta.label}: "
            f"whoever can write the log decides {power}.",
            hint="Leave the model out. If everybody who can write the log may do that, silence this check.",
            id="morango_celery.W008",
        )
        for model in sorted(ingested_models(), key=lambda model: model._meta.label)
        if (power := next(_powers(model), None))
    ]


def _powers(model: type[Model]) -> Iterator[str]:
    """Yield the subjects that rows of a model decide about, tables of many-to-many values included."""
    about = [model]
    if model._meta.auto_created:
        about = [field.remote_field.model for field in model._meta.local_fields if field.remote_field]
    for one in about:
        if issubclass(one, AbstractBaseUser) or one._meta.label == django_settings.AUTH_USER_MODEL:
            yield POWERFUL_APPS["django.contrib.auth"]
        if issubclass(one, AbstractBaseSession):
            yield POWERFUL_APPS["django.contrib.sessions"]
        app = apps.get_app_config(one._meta.app_label).name
        if app.split(".")[0] == OF_THIS_PROJECT:
            app = OF_THIS_PROJECT
        if app in POWERFUL_APPS:
            yield POWERFUL_APPS[app]
