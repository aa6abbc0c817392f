"""Tree of errors. The branch decides about the run, the record, or the task.

- `UsageError`: the caller asked for something that can't be; nothing was done.
- `RecordError`: written to the record's Store row; never retried within a pass.
- `TransientError`: nothing was written; the same call may succeed later, and is retried.
- `ComparisonError`: nothing was compared, and nothing changed; its text says what to do.
- `PayloadError`: the task that was sent with a reference fails; trying again would not help.
- `FatalError`: the run stops, with the reason on its ledger row.
- `SoftTimeLimitReached` stands beside the tree, where no model's ``except Exception`` reaches it.

An exception's docstring is its default message.
"""

from __future__ import annotations


class MorangoCeleryError(Exception):
    """Something went wrong in morango_celery."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class UsageError(MorangoCeleryError):
    """The call can't be carried out as given."""


class InvalidSettingError(UsageError):
    """A setting of MORANGO_CELERY can't be used."""


class MessageTooLargeError(UsageError):
    """The arguments of a task don't fit in a message; it was not sent."""


class UnknownProfileError(UsageError):
    """No syncable model belongs to this profile."""


class UnknownRunError(UsageError):
    """The ledger has no such run."""


class InvalidFilterError(UsageError):
    """The sync filter can't be used."""


class RecordError(MorangoCeleryError):
    """The record can't be deserialized."""


class UnknownModelError(RecordError):
    """No installed app registers a syncable model of this name in this profile."""


class ModelNotIngestedError(RecordError):
    """MORANGO_CELERY_OPLOG['INGEST_MODELS'] doesn't name this model."""


class MismatchedIdError(RecordError):
    """The record's JSON names another id than the record has."""


class PoisonRecordError(RecordError):
    """Deserializing the record ends the worker that tries to."""


class TransientError(MorangoCeleryError):
    """The database or broker is not available at the moment; nothing was written."""


class QueryTimeoutError(TransientError):
    """The database was given a few seconds for this, and needs more."""


class PausedError(TransientError):
    """Runs are paused; nothing was done."""


class ExclusiveModelsTakenError(TransientError):
    """Another batch is saving records of exclusive models; nothing was written."""


class BrokerUnreachableError(TransientError):
    """The broker doesn't answer."""


class PayloadStoreUnavailableError(TransientError):
    """The store of payloads can't be reached at the moment."""


class ComparisonError(MorangoCeleryError):
    """Morango's function and ours could not be compared; everything was rolled back."""


class PayloadError(MorangoCeleryError):
    """The value that a task's argument refers to can't be had."""


class MissingPayloadError(PayloadError):
    """The store of payloads doesn't have it."""


class CorruptPayloadError(PayloadError):
    """The store of payloads has another value than the one that was put there."""


class FatalError(MorangoCeleryError):
    """The run can't go on."""


class SystemicError(FatalError):
    """Every record of a batch failed with one error, which is not about the records."""


class InvalidMessageError(FatalError):
    """A task message doesn't fit the ledger; it was not carried out."""


class RunFailedError(FatalError):
    """The run ended without having deserialized everything."""


class SoftTimeLimitReached(BaseException):
    """The worker's time limit for a task was reached while a batch was being deserialized."""
