"""The table of the database backend."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from typing_extensions import override


class Payload(models.Model):
    """A value, or a part of one, that some task was given."""

    key = models.CharField(max_length=100, primary_key=True)
    """SHA-256 of the value, and the number of this part."""
    data = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    """Until then it isn't removed, for a message may refer to it. There is no index: each insert would pay
    for it, and all that it would spare is one scan a day by the pruner."""

    @override
    def __str__(self) -> str:
        return f"payload {self.key}"
