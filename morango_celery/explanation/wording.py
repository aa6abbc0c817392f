"""The explanation of a model in words, for people: the command and the page say the same."""

from __future__ import annotations

from morango_celery.deserialization.traits import WriteStrategy
from morango_celery.explanation.models import Equivalent, ModelExplanation, Parsing, Validation
from morango_celery.explanation.statements import SMALL
from morango_celery.reading.definitions import Definition

PARSED = {
    Parsing.ROW: "straight to rows, a column at a time",
    Parsing.INSTANCE: "to instances, as by Morango's deserialize()",
    Parsing.OWN: "to instances, by code of its own",
}
VALIDATED = {
    Validation.COLUMNS: "a column at a time",
    Validation.CLEAN_FIELDS: "by Morango's clean_fields()",
    Validation.OWN: "by code of its own",
}
WRITTEN = {
    WriteStrategy.BULK: "by one upsert for a batch",
    WriteStrategy.CAPTURED_SAVE: "by one upsert of the rows that its save() would write",
    WriteStrategy.INDIVIDUAL: "one by one, by save()",
}


def way(explained: ModelExplanation) -> str:
    """Return the way of a model's records in two or three words."""
    if explained.is_on_fast_path:
        return "fast path"
    if explained.writing is WriteStrategy.BULK:
        return "instances, one upsert"
    if explained.writing is WriteStrategy.CAPTURED_SAVE:
        return "captured save"
    return "exclusive" if explained.exclusive_reasons else "one by one"


def handling(explained: ModelExplanation) -> list[tuple[str, str]]:
    """Return how records are parsed, validated and written, a heading and a text each."""
    written = WRITTEN[explained.writing]
    if explained.is_exclusive:
        why = explained.exclusive_reasons or ("a model of its cycle is",)
        written += f"; its batches are executed one after another: {'; '.join(map(str, why))}"
    return [
        ("parsed", PARSED[explained.parsing]),
        ("validated", VALIDATED[explained.validation]),
        ("written", written),
    ]


def shape(explained: ModelExplanation) -> list[tuple[str, str]]:
    """Return dependencies, tree and cycle of a model, as far as it has any."""
    found = []
    if explained.dependencies:
        named = (f"{each.label} ({', '.join(each.by)})" for each in explained.dependencies)
        found.append(("depends on", ", ".join(named)))
    if explained.tree_key is not None:
        found.append(("tree", f"by {explained.tree_key}: parents before children"))
    if explained.in_cycle_with:
        found.append(("cycle", cycle_text(explained)))
    return found


def cycle_text(explained: ModelExplanation) -> str:
    by = f", here by {', '.join(explained.cyclic_keys)}" if explained.cyclic_keys else ""
    members = ", ".join(sorted([explained.label, *explained.in_cycle_with]))
    return f"{members} refer to each other{by}, and are deserialized together"


def equivalent_text(explained: ModelExplanation) -> str:
    """Return whether equivalents of a model and its fields are declared, and match."""
    of_model = {
        Equivalent.NOT_NEEDED: "none needed",
        Equivalent.NONE: "none declared",
        Equivalent.MATCHES: "declared, and matches the installed code",
        Equivalent.UNUSED: f"declared, but not used: {explained.equivalent_problem}",
    }
    of_fields = [
        f"of {each.field_class}: {'matches' if each.matches else 'is of another version'}"
        for each in explained.field_equivalents
    ]
    return "; ".join([of_model[explained.equivalent], *of_fields])


def statements_in_short(explained: ModelExplanation) -> str:
    """Return a number like "8" or "8+", or like "7 + 3n" for n records."""
    said = explained.statements
    each = f" + {said.per_record}n" if said.per_record else ""
    return f"{said.small_batch}{each}{'' if said.are_known else '+'}"


def statements_text(explained: ModelExplanation) -> str:
    said = explained.statements
    small, large = (
        f"{fixed}{f' and {each} a record' if each else ''}"
        for fixed, each in (
            (said.small_batch, said.per_record),
            (said.large_batch, said.per_record_of_large_batch),
        )
    )
    text = f"{small} in a batch of up to {SMALL:,} records, {large} in a larger one"
    return text if said.are_known else f"at least {text}"


def code_text(code: Definition) -> str:
    """Return the name and the place of code, and the name of what it overrides."""
    overridden = ".".join(code.overrides.split(".")[-2:])
    return f"{code.place or code.module}  {code.name}{f' overrides {overridden}' if overridden else ''}"
