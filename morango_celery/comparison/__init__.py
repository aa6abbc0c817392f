"""Comparison with Morango's own function, on an operator's own records.

Both functions deserialize the same records in one transaction that is rolled back. The rows that each of them
wrote are hashed, column by column, and compared in a temporary database.
"""

from __future__ import annotations

from morango_celery.comparison.compare import compare
from morango_celery.comparison.report import Difference, ModelFigures, Report, Request, SideFigures

__all__ = ["Difference", "ModelFigures", "Report", "Request", "SideFigures", "compare"]
