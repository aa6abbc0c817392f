"""What an operator sees in Django's admin. Its autodiscovery alone imports this."""

from __future__ import annotations

from morango_celery.admin import batches, records_in_error, runs

__all__ = ["batches", "records_in_error", "runs"]
