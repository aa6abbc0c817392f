"""Issuer of a statement that the database refused: this app, or code of a model."""

from __future__ import annotations

from types import CodeType, TracebackType

from django.db import DatabaseError
from django.db.models import Model
from django.dispatch import Signal

from morango_celery.db.errors import is_infrastructure_error, is_refusal

_SIGNATURE = "_morango_celery_by_model"


class _Signing:
    """Context manager that signs the database errors which leave it, unless they are signed already.

    Cost: less than a microsecond.
    """

    def __init__(self, *, by_model: bool) -> None:
        self.by_model = by_model

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DatabaseError) and not hasattr(error, _SIGNATURE):
            setattr(error, _SIGNATURE, self.by_model or _passed_projects_code(error))


MODELS_CODE = _Signing(by_model=True)
"""Around each call of a model's own code."""
OUR_STATEMENT = _Signing(by_model=False)
"""Context of statements that this app executes for such code, inside of a call."""

_PROJECTS_CODE: set[CodeType] = {
    Signal.send.__code__,
    Model.__init__.__code__,
    Model.from_db.__func__.__code__,  # type: ignore[attr-defined]  # the stubs see no method in it
}
"""Code that runs receivers and constructors of a project, also in the middle of a statement of ours."""


def is_systemic(error: BaseException) -> bool:
    """Return True if the database refuses a statement of this app, which no record is to blame for.

    A model's own statement that is refused in the same way is the record's error.
    """
    if not isinstance(error, DatabaseError) or not is_refusal(error):
        return False
    by_model: bool | None = getattr(error, _SIGNATURE, None)
    return not (_passed_projects_code(error) if by_model is None else by_model)


def is_no_records_fault(error: Exception) -> bool:
    """Return True if no record is to blame: the database or this machine fails, or refuses a statement of
    ours."""
    return is_infrastructure_error(error) or is_systemic(error)


def _passed_projects_code(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in _PROJECTS_CODE:
            return True
        trace = trace.tb_next
    return False
