"""Forms of the ledger's rows: workers of two versions share the ledger, and the older one knows less."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from morango_celery.version import FORM, current_form


class Formed(models.Model):
    """A row of the ledger that a newer version may have written, or taken over.

    This version neither begins nor ends nor deletes such a row: it leaves it to workers of the newer one.
    """

    State: ClassVar[Any]

    form = models.IntegerField(default=current_form)
    """Form in which it is written: see `FORM`. That of a batch is at least that of its run."""

    class Meta:
        abstract = True

    @classmethod
    def known(cls) -> Q:
        """Return the condition for rows that this version knows how to carry out."""
        return Q(form__lte=FORM)

    @property
    def is_known(self) -> bool:
        """True if this version knows the row's form and state."""
        return self.form <= FORM and self.state in self.State.values  # type: ignore[attr-defined]  # of each model
