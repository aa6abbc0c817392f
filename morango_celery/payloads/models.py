"""The table of the database backend."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class Payload(models.Model):
    """A value, or a part of one, that some task was given."""

    key = models.CharField(max_length=100, primary_key=True)
    """The SHA-256 of the value, and which part of it this is."""
    data = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    """Before that it isn't removed: a message may refer to it. No index: each value would pay for it,
    to spare the pruner, who comes once a day, one look at all."""

    def __str__(self) -> str:
        return f"payload {self.key}"
