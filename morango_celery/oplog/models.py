"""Tables of the recorder and of the ingestion."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from typing_extensions import override


class OutboxChange(models.Model):
    """A line that is to be written to the log, committed together with its change: a transactional outbox.

    Changes of one object have ascending ids: a later change waits for the row lock of the earlier one before
    it gets an id.
    """

    text = models.TextField()
    """Without the newline at its end."""
    size_bytes = models.IntegerField()
    """Size of the text in UTF-8, so that it is known without reading the text."""

    @override
    def __str__(self) -> str:
        return f"outbox change {self.pk}"

    @classmethod
    def of(cls, text: str) -> OutboxChange:
        """Return an unsaved change."""
        return cls(text=text, size_bytes=len(text.encode()))


class RecorderFile(models.Model):
    """Committed size of a log that is written here. The lock of this row is the right to write."""

    path = models.TextField(unique=True)
    device = models.CharField(max_length=20)
    inode = models.CharField(max_length=20)
    size_bytes = models.BigIntegerField(default=0)

    @override
    def __str__(self) -> str:
        return self.path


class IngestSource(models.Model):
    """An ingested log. The lock of this row is the right to apply its lines."""

    name = models.TextField(unique=True)
    version = models.BigIntegerField(default=0)
    """Raised by each transaction that applies lines. Another version than expected shows a concurrent
    reader."""

    @override
    def __str__(self) -> str:
        return self.name


class IngestPosition(models.Model):
    """Position in a file of a source, updated in the transaction that writes the objects."""

    source = models.ForeignKey(IngestSource, on_delete=models.CASCADE, related_name="positions")
    path = models.TextField()
    """Path of the file when it was last read."""
    device = models.CharField(max_length=20)
    inode = models.CharField(max_length=20)
    """A text, as `device` is: an inode may be larger than the database's numbers."""
    head_bytes = models.IntegerField(default=0)
    head_hash = models.CharField(max_length=64, blank=True)
    """SHA-256 of the file's first `head_bytes` bytes."""
    tail_hash = models.CharField(max_length=64, blank=True)
    """SHA-256 of the bytes right before `offset`, at most as many."""
    offset = models.BigIntegerField(default=0)
    """Offset of the first line that is not applied."""
    lines = models.BigIntegerField(default=0)
    """Number of lines read."""
    updated_at = models.DateTimeField(auto_now=True)

    @override
    def __str__(self) -> str:
        return f"{self.path} at {self.offset}"


class DeadLetter(models.Model):
    """A line that couldn't be applied."""

    class State(models.TextChoices):
        OPEN = "open"
        APPLIED = "applied"
        """A later attempt has applied it."""
        SUPERSEDED = "superseded"
        """A later line about the same objects was applied: this one would bring old values back."""

    source = models.ForeignKey(IngestSource, on_delete=models.CASCADE, related_name="dead_letters")
    path = models.TextField()
    """Path of the file when the line was read."""
    offset = models.BigIntegerField()
    """Offset of the line's first byte."""
    text = models.TextField()
    reason = models.TextField()
    missing_object = models.CharField(max_length=255, blank=True)
    """A missing object that the line refers to, as ``app.model:key``. Its arrival retries the line."""
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    attempts = models.IntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True)
    """Time at which it ceased to be open."""

    class Meta:
        indexes = [
            models.Index(
                fields=["source", "missing_object"],
                condition=models.Q(state="open"),
                name="mcelery_letter_open",
            ),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}"


class DeadLetterObject(models.Model):
    """An object that a dead letter changes."""

    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="objects_of_letter")
    key = models.CharField(max_length=255, db_index=True)
    """``app.model:key``, see `morango_celery.oplog.rows.name_of`."""

    @override
    def __str__(self) -> str:
        return self.key
