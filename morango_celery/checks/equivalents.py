"""System checks of declared equivalents: of those that don't stand for the installed code, and of models
without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Info, Warning, register  # noqa: A004  (as Django names it)
from morango.models.core import SyncableModel

from morango_celery.conf import problems, settings
from morango_celery.deserialization.equivalent import field_mismatch, mismatch
from morango_celery.deserialization.parse import instance_reasons
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
        if reason is not None
    ]


@register("morango_celery")
def check_models_without_equivalent(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Return an information with the models that aren't on the fast path.

    There is none where no equivalent is declared at all.
    """
    models = list(_models())
    if problems() or not settings.USE_EQUIVALENTS or not any(map(declared, models)):
        return []
    slow = {model._meta.label: reasons for model in models if (reasons := instance_reasons(model))}
    if not slow:
        return []
    listed = "; ".join(
        f"{label} ({', '.join(dict.fromkeys(reason.kind for reason in reasons))})"
        for label, reasons in slow.items()
    )
    return [
        Info(
            f"{len(slow)} of {len(models)} models aren't on the fast path: {listed}.",
            hint="Nothing has to be done. `manage.py explain_models` says why, and the remedies.",
            id="morango_celery.I003",
        )
    ]


def _models() -> Iterator[type[SyncableModel]]:
    for profile in profiles():
        yield from registered_models(profile)
