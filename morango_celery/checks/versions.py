"""System checks of packages with private names that this project relies on: their series, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.core.checks import CheckMessage, Warning, register  # noqa: A004  (as Django names it)

from morango_celery import celery_compat, django_compat, upstream
from morango_celery.celery_names import missing_names
from morango_celery.checks.workers import are_used

CHECKED: Mapping[str, Sequence[str]] = {
    name: (releases,) if isinstance(releases, str) else releases
    for compat in (celery_compat, django_compat, upstream)
    for name, releases in compat.CHECKED.items()
}
"""Releases that private names were checked against, by distribution."""


@register("morango_celery")
def check_versions(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a package whose release is of another series than the checked ones.

    A series is a release without its last number. Patches seldom move names; this project's own tests compare
    whole numbers.
    """
    return [
        Warning(
            f"{name} {installed} is installed. Private names of it that morango_celery relies on were "
            f"checked against {_listed(checked, 'and')}.",
            hint=f"Install {name} {_listed([f'{_series(release)}.*' for release in checked], 'or')}, or a "
            f"morango_celery for {name} {_series(installed)}.",
            id="morango_celery.W011",
        )
        for name, checked in CHECKED.items()
        if (installed := _installed(name)) is not None and _series(installed) not in map(_series, checked)
    ]


@register("morango_celery")
def check_names(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of each private name of Celery's or kombu's that is not there, and of what stops working."""
    if not are_used():
        return []
    return [
        Warning(
            str(missing),
            hint="Install the releases that morango_celery was checked against: "
            + ", ".join(f"{name} {checked}" for name, checked in celery_compat.CHECKED.items())
            + ".",
            id="morango_celery.W014",
        )
        for missing in missing_names()
    ]


def _installed(name: str) -> str | None:
    """Return the version of a distribution; None where packages come without their metadata."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _series(release: str) -> str:
    return release.rpartition(".")[0]


def _listed(releases: Sequence[str], conjunction: str) -> str:
    *others, last = releases
    return f"{', '.join(others)} {conjunction} {last}" if others else last
