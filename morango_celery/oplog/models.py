"""What recorder and ingestion must not forget."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxChange(models.Model):
    """A line that is to be written to the log, committed together with the change that it tells of.

    The ids are in the order in which changes of one object were made: a later change waits for the row lock
    of the earlier one before it gets an id.
    """

    text = models.TextField()
    """Without the newline at its end."""
    size_bytes = models.IntegerField()
    """Of the text, in UTF-8; so nobody has to read it to know."""

    def __str__(self) -> str:
        return f"outbox change {self.pk}"

    @classmethod
    def of(cls, text: str) -> OutboxChange:
        """An unsaved one."""
        return cls(text=text, size_bytes=len(text.encode()))


class RecorderFile(models.Model):
    """How far the recorder has written a log for good; its lock is the right to write."""

    path = models.TextField(unique=True)
    device = models.CharField(max_length=20)
    inode = models.CharField(max_length=20)
    size_bytes = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.path


class IngestSource(models.Model):
    """A log that is ingested; its lock is the right to apply lines of it."""

    name = models.TextField(unique=True)
    version = models.BigIntegerField(default=0)
    """Raised by each transaction that applies lines: who finds another than expected has been overtaken."""

    def __str__(self) -> str:
        return self.name


class IngestPosition(models.Model):
    """How far a file of a source is applied. Changes in the transaction that writes the objects."""

    source = models.ForeignKey(IngestSource, on_delete=models.CASCADE, related_name="positions")
    path = models.TextField()
    """Where the file was when it was last read."""
    device = models.CharField(max_length=20)
    inode = models.CharField(max_length=20)
    """With `device`, as text: an inode may be larger than the database's numbers."""
    head_bytes = models.IntegerField(default=0)
    head_hash = models.CharField(max_length=64, blank=True)
    """SHA-256 of the file's first `head_bytes` bytes."""
    tail_hash = models.CharField(max_length=64, blank=True)
    """SHA-256 of the bytes right before `offset`, at most as many."""
    offset = models.BigIntegerField(default=0)
    """Where the first line begins that is not applied, in bytes."""
    lines = models.BigIntegerField(default=0)
    """How many lines were read so far."""
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.path} at {self.offset}"


class DeadLetter(models.Model):
    """A line that couldn't be applied."""

    class State(models.TextChoices):
        OPEN = "open"
        APPLIED = "applied"
        """By a later attempt."""
        SUPERSEDED = "superseded"
        """A later line about the same objects was applied: to apply this one would bring old values back."""

    source = models.ForeignKey(IngestSource, on_delete=models.CASCADE, related_name="dead_letters")
    path = models.TextField()
    """Of the file, when the line was read."""
    offset = models.BigIntegerField()
    """Where the line begins, in bytes."""
    text = models.TextField()
    reason = models.TextField()
    missing_object = models.CharField(max_length=255, blank=True)
    """The missing object that it refers to, as ``app.model:key``; once that arrives, it is tried again."""
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    attempts = models.IntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True)
    """When it ceased to be open."""

    class Meta:
        indexes = [
            models.Index(
                fields=["source", "missing_object"],
                condition=models.Q(state="open"),
                name="mcelery_letter_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}"


class DeadLetterObject(models.Model):
    """An object that a dead letter is about."""

    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="objects_of_letter")
    key = models.CharField(max_length=255, db_index=True)
    """``app.model:key``, see `morango_celery.oplog.rows.name_of`."""

    def __str__(self) -> str:
        return self.key
