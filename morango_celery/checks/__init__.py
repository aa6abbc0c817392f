"""System checks: errors refuse settings that can't work, warnings name those that may do harm."""

from __future__ import annotations

from morango_celery.checks import (
    broker,
    deployment,
    equivalents,
    indexes,
    models,
    operations,
    rabbitmq,
    settings,
    versions,
    workers,
)

__all__ = [
    "broker",
    "deployment",
    "equivalents",
    "indexes",
    "models",
    "operations",
    "rabbitmq",
    "settings",
    "versions",
    "workers",
]
