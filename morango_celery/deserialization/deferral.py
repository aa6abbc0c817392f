"""Deferral of records whose models' code reads rows that their group is yet to write.

Of a tree, Morango parses, validates and saves one record after another, parents first. Here a group is
parsed, then validated, then written: code that looks at a parent before it is written is run when it is.
"""

from __future__ import annotations

from collections.abc import Callable

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.model_code import mentions
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import tables_of, traits_of


class ReadsUnwrittenRows(BaseException):
    """Interruption of a model's code that is about to read rows which aren't written yet.

    It stands beside `Exception`, so that this code doesn't take it for its own.
    """


def call_or_defer(
    carriers: list[DeserializeTask], context: BatchContext, operation: Callable[[DeserializeTask], object]
) -> None:
    """Call `operation` with each carrier. Defer a carrier if code of its model is about to read a table of
    theirs.

    The outcome of a deferred carrier is open.

    Cost: no statement; nothing at all, unless a model of a tree has such code.
    """
    models = {carrier.model for carrier in carriers if carrier.has_model}
    if not any(traits_of(model).may_read_unwritten_rows for model in models):
        for carrier in carriers:
            operation(carrier)
        return
    tables = {table for model in models for table in tables_of(model)}

    def before_statement(statement: str) -> None:
        if mentions(statement, tables) and not context.is_prefetching:
            raise ReadsUnwrittenRows

    with context.model_code.observed_by(before_statement):
        for carrier in carriers:
            try:
                operation(carrier)
            except ReadsUnwrittenRows:
                carrier.defer()
