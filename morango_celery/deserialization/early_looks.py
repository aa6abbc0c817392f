"""Looks of models' code at rows that their group is yet to write.

Of a tree, Morango parses, validates and saves one record after another, parents first. Here a group is
parsed, then validated, then written: code that looks at a parent before it is written is run when it is.
"""

from __future__ import annotations

from collections.abc import Callable

from morango_celery.deserialization.context import BatchContext
from morango_celery.deserialization.model_code import mentions
from morango_celery.deserialization.task import DeserializeTask
from morango_celery.deserialization.traits import tables_of, traits_of


class LookedEarly(BaseException):
    """Interruption of a model's code that is about to read rows which aren't written yet.

    It stands beside `Exception`, so that this code doesn't take it for its own.
    """


def until_they_look(
    carriers: list[DeserializeTask], context: BatchContext, judge: Callable[[DeserializeTask], object]
) -> None:
    """Call `judge` with each carrier, until code of its model is about to look at a table of theirs.

    Such a carrier is marked, and nothing is known of it.

    Cost: no statement; nothing at all, unless a model of a tree has such code.
    """
    models = {carrier.model for carrier in carriers if carrier.has_model}
    if not any(traits_of(model).may_look_early for model in models):
        for carrier in carriers:
            judge(carrier)
        return
    tables = {table for model in models for table in tables_of(model)}

    def heed(statement: str) -> None:
        if mentions(statement, tables) and not context.follows_what_is_written:
            raise LookedEarly

    with context.model_code.heard_by(heed):
        for carrier in carriers:
            try:
                judge(carrier)
            except LookedEarly:
                carrier.put_off()
