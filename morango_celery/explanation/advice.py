"""Advice: a concrete remedy for each kind of reason that keeps a model off the fast path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morango_celery.deserialization.conversions import plain_class_of
from morango_celery.deserialization.dependency_graph import Model
from morango_celery.deserialization.equivalent import field_mismatch
from morango_celery.deserialization.reasons import Kind, Reason
from morango_celery.equivalents import declared

WITHOUT_A_WAY = {Kind.TREE, Kind.EXCLUSIVE}
"""Kinds of reasons that no remedy takes away, so that others needn't go either."""
OF_WRITING = {Kind.TABLES, Kind.COMPUTED_COLUMN, Kind.SAVED_INDIVIDUALLY, Kind.SEEN_WRITING, Kind.EXCLUSIVE}
"""Kinds of reasons for writing records one by one: a remedy is worth it beside any other reason."""


def advice_on(reasons: Sequence[Reason], model: Model) -> list[str]:
    """Return the remedies of all reasons that keep a model off the fast path, as sentences.

    All of them are needed. Where one reason has no remedy, those of others are left out that would not help
    without.
    """
    own = [reason for reason in reasons if not _goes_with_table(reason, model)]
    if any(reason.kind in WITHOUT_A_WAY for reason in own):
        own = [reason for reason in own if reason.kind in WITHOUT_A_WAY | OF_WRITING]
    return list(dict.fromkeys(_ADVICE[reason.kind](reason, model) for reason in own))


def _goes_with_table(reason: Reason, model: Model) -> bool:
    """Return True for the tree that Morango takes the link to a parent's table for."""
    return reason.kind is Kind.TREE and bool(_field(reason, model).remote_field.parent_link)


def _declare(reason: Reason, model: Model) -> str:
    names = tuple(reason.subject.split(", "))
    return (
        "If this code only compares columns, requires a range or fills in a value: declare an "
        f"Equivalent(overrides={names!r}, ...)."
    )


def _extend(reason: Reason, model: Model) -> str:
    return (
        f"Read {reason.subject}. If the rules say all of it, add it to `overrides` of the equivalent, and "
        "set its `sha256` anew."
    )


def _renew(reason: Reason, model: Model) -> str:
    equivalent = declared(model)
    names = (*equivalent.overrides, *equivalent.calls) if equivalent is not None else ()
    return (
        "Compare the installed code with the version that the rules were written for. If they still say all "
        f"of it, set `sha256` to {reason.subject}, which is source_hash({model.__name__}, {names!r})."
    )


def _mend_rule(reason: Reason, model: Model) -> str:
    return f"Mend the rule about {reason.subject} in the equivalent of {model.__name__}."


def _mend_calls(reason: Reason, model: Model) -> str:
    return f"Mend `overrides` and `calls` of the equivalent of {model.__name__}: that code can't be read."


def _plain_field(reason: Reason, model: Model) -> str:
    kind = type(_field(reason, model))
    plain = plain_class_of(kind)
    use = f"use a plain {plain.__name__}, or " if plain else ""
    return f"{reason.subject}: {use}declare_field({kind.__name__}, ...)."


def _field_equivalent(reason: Reason, model: Model) -> str:
    kind = type(_field(reason, model))
    if field_mismatch(kind) is None:
        return f"{reason.subject}: let the converter of {kind.__name__} take the options of this field, too."
    return f"{reason.subject}: mend `calls` or `sha256` of declare_field({kind.__name__}, ...)."


def _field(reason: Reason, model: Model) -> Any:
    return model._meta.get_field(reason.subject)


def _always(text: str) -> Callable[[Reason, Model], str]:
    return lambda reason, model: text.format(subject=reason.subject)


_ADVICE: Mapping[Kind, Callable[[Reason, Model], str]] = {
    Kind.NO_EQUIVALENT: _declare,
    Kind.FURTHER_OVERRIDE: _extend,
    Kind.UNUSABLE_RULE: _mend_rule,
    Kind.UNREADABLE_CODE: _mend_calls,
    Kind.OTHER_VERSION: _renew,
    Kind.EQUIVALENTS_OFF: _always("Set MORANGO_CELERY['USE_EQUIVALENTS'] to True."),
    Kind.FIELD: _plain_field,
    Kind.FIELD_EQUIVALENT: _field_equivalent,
    Kind.VALIDATORS: _always("{subject}: keep validators of lengths and ranges with fixed limits alone."),
    Kind.REFERENCE: _always("{subject}: refer to the id of a syncable model."),
    Kind.NO_TIME_ZONES: _always("Set USE_TZ to True."),
    Kind.PROPERTY: _always("{subject}: give the property another name, and leave the field its own."),
    Kind.ATTRIBUTE_ACCESS: _always("Do in save() what these methods do, and declare an equivalent of that."),
    Kind.TREE: _always(
        "Nothing leads a tree to the fast path: parents have to be there before their children. Less code in "
        "its own methods helps."
    ),
    Kind.TABLES: _always("Inherit from an abstract class instead of {subject}, so that a record is one row."),
    Kind.COMPUTED_COLUMN: _always(
        "{subject}: compute the value in Python, by a field without get_placeholder()."
    ),
    Kind.RECEIVER: _always(
        "Connect the receiver of {subject} with a `sender`, if it isn't meant for this model."
    ),
    Kind.SAVED_INDIVIDUALLY: _always(
        "Remove it from SAVE_INDIVIDUALLY, unless its save() must see rows without naming their table."
    ),
    Kind.EXCLUSIVE: _always(
        "Nothing, as long as its save() counts or numbers among other rows, or writes them: two at a time "
        "would get wrong results."
    ),
    Kind.SEEN_WRITING: _always("Name it in EXCLUSIVE_MODELS, so that runs are planned like that."),
}
"""Makers of advice. Each kind has one."""
