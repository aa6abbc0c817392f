"""System checks of declared equivalents: of those that don't stand for the installed code, and of models
without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Info, Warning, register  # noqa: A004  (as Django names it)
from django.db.models import Model

from morango_celery.conf import problems, settings
from morango_celery.deserialization.equivalent import field_mismatch, mismatch
from morango_celery.deserialization.rows import row_plan
from morango_celery.deserialization.traits import traits_of
from morango_celery.equivalents import declared, declared_fields
from morango_celery.upstream import profiles, registered_models

PAGE = "docs/how-to/declare-equivalents.md"


@register("morango_celery")
def check_declared_equivalents(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return one warning per declared equivalent that doesn't stand for the installed code."""
    models = {model._meta.label: mismatch(model) for model in _models() if declared(model) is not None}
    fields = {field.__qualname__: field_mismatch(field) for field in declared_fields()}
    return [
        Warning(
            f"The equivalent that is declared for {name} isn't used: {reason}.",
            hint=f"Nothing is wrong but slow: the code itself runs for each record. See {PAGE}.",
            id="morango_celery.W012",
        )
        for name, reason in (models | fields).items()
        if reason
    ]


@register("morango_celery")
def check_models_without_equivalent(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return an information with the models whose own code runs for each record, and why.

    There is none where no equivalent is declared at all.
    """
    models = list(_models())
    if problems() or not settings.USE_EQUIVALENTS or not any(map(declared, models)):
        return []
    slow = [f"{model._meta.label} ({reason})" for model in models if (reason := _reason(model))]
    return [
        Info(
            f"Code of their own runs for each record of {len(slow)} of {len(models)} models: "
            f"{'; '.join(slow)}.",
            hint=f"Nothing has to be done. Where many records of such a model arrive, see {PAGE}.",
            id="morango_celery.I003",
        )
        for _ in slow[:1]
    ]


def _reason(model: Any) -> str:
    """Return the reason why records of a model don't take the fast path; empty if they do."""
    if row_plan(model) is not None:
        return ""
    if traits_of(model).follows_relations and (reason := mismatch(model)):
        return reason
    return "a field, the tree or the strategy of its records has no fast path"


def _models() -> Iterator[type[Model]]:
    for profile in profiles():
        yield from registered_models(profile)
