"""Explanations of the way in which a model's records are deserialized, made of the engine's own decisions."""

from __future__ import annotations

from morango_celery.explanation.models import ModelExplanation, explain

__all__ = ["ModelExplanation", "explain"]
