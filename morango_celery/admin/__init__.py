"""The operator's pages in Django's admin. Only the admin's autodiscovery imports this package."""

from __future__ import annotations

from morango_celery.admin import batches, comparisons, pauses, records_in_error, runs

__all__ = ["batches", "comparisons", "pauses", "records_in_error", "runs"]
