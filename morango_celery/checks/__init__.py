"""System checks: what can't work is refused at start-up, and what may hurt is said."""

from __future__ import annotations

from morango_celery.checks import broker, deployment, indexes, models, operations, settings, workers

__all__ = ["broker", "deployment", "indexes", "models", "operations", "settings", "workers"]
