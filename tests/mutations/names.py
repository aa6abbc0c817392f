"""Take the names of columns for those of fields, or read them otherwise than the database does."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

_NAMES = "parity/test_names.py"

MUTATIONS = (
    Mutation(
        "json-is-read-by-the-names-of-fields",
        "deserialization/statements.py",
        "        return _synced(field.attname)\n",
        '        return f"synced.{column_name(field)}"\n',
        (f"{_NAMES}::test_misnamed_rows_are_written_together",),
        "postgresql",
    ),
    Mutation(
        "keys-may-be-longer-than-names",
        "deserialization/statements.py",
        "    if len(field.attname.encode()) <= LONGEST_NAME_BYTES:\n",
        "    if True:\n",
        (f"{_NAMES}::test_misnamed_rows_are_written_together",),
        "postgresql",
    ),
    Mutation(
        "columns-are-looked-up-by-their-names",
        "deserialization/identifiers.py",
        "    return column_name(field)\n\n\ndef kept_name",
        "    return quoted(attname)\n\n\ndef kept_name",
        (f"{_NAMES}::test_each_value_comes_to_the_column_of_its_field",),
    ),
    Mutation(
        "long-names-are-cut-as-postgresql-cuts-them",
        "deserialization/identifiers.py",
        "    return name.encode()[:LONGEST_NAME_BYTES].decode(errors=",
        "    return name.encode().decode(errors=",
        (f"{_NAMES}::test_each_value_comes_to_the_column_of_its_field", "oplog/test_names.py"),
        "postgresql",
    ),
    Mutation(
        "rows-of-other-schemas-are-locked",
        "deserialization/identifiers.py",
        "    if '\".\"' not in rows.model._meta.db_table:\n",
        "    if True:\n",
        (f"{_NAMES}::test_records_of_every_model_are_deleted",),
        "postgresql",
    ),
    Mutation(
        "fields-with-sql-of-their-own-are-saved-one-by-one",
        "deserialization/traits.py",
        "    return placeholder is not None and",
        "    return False and",
        (f"{_NAMES}::test_each_value_comes_to_the_column_of_its_field",),
    ),
    Mutation(
        "computed-columns-have-names-of-no-field",
        "serialization/columns.py",
        '    expression.default_alias = "read__"\n',
        "",
        (f"{_NAMES}::test_edits_become_records",),
    ),
    Mutation(
        "properties-in-the-place-of-fields-are-asked",
        "deserialization/rows.py",
        " or not keeps_values(model)",
        "",
        ("unit/test_rows.py::test_a_model_with_a_property_in_a_fields_place_has_no_fast_path",),
    ),
)
