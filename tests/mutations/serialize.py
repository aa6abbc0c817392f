"""Rules of what serialization makes of app rows, Store rows and deletions."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

_TESTS = "parity/serialization"

MUTATIONS = (
    Mutation(
        "a-conflict-keeps-the-synced-version",
        "serialize/sql.py",
        "CASE WHEN dirty_bit",
        "CASE WHEN false",
        (f"{_TESTS}/test_edits.py::test_a_conflict_keeps_the_synced_version",),
    ),
    Mutation(
        "an-edit-brings-a-deleted-record-back",
        "serialize/sql.py",
        " deleted = false,",
        " deleted = deleted,",
        (f"{_TESTS}/test_edits.py::test_an_edit_brings_a_deleted_record_back",),
    ),
    Mutation(
        "an-edit-is-of-no-transfer-session",
        "serialize/sql.py",
        "last_transfer_session_id = NULL",
        "last_transfer_session_id = last_transfer_session_id",
        (f"{_TESTS}/test_edits.py::test_an_edited_row",),
    ),
    Mutation(
        "copied-texts-are-escaped",
        "serialize/sql.py",
        "    text = text.replace(_ESCAPE, _ESCAPED)\n",
        "",
        (f"{_TESTS}/test_values.py::test_a_source_id_and_a_partition",),
        database="postgresql",
    ),
    Mutation(
        "copys-errors-are-djangos",
        "serialize/sql.py",
        "with connection.wrap_database_errors:",
        "if True:",
        (f"{_TESTS}/test_concurrency.py::test_what_is_dequeued_at_the_same_time_is_merged",),
        database="postgresql",
    ),
    Mutation(
        "keys-that-the-model-lacks-are-kept",
        "serialize/update.py",
        "    held.update(zip(task.names, task.values, strict=True))\n    return encode(held)\n",
        "    return text\n",
        (
            f"{_TESTS}/test_values.py::test_keys_of_the_store_row_keep_their_place_and_unknown_ones_their_values",
        ),
    ),
    Mutation(
        "a-failing-row-is-named",
        "serialize/update.py",
        '        error.add_note(f"While {task.model._meta.label} {task.id} was being serialized.")\n',
        "",
        (f"{_TESTS}/test_failures.py::test_a_row_that_fails_leaves_nothing_behind_and_is_named",),
    ),
    Mutation(
        "a-serialize-of-the-models-own-runs",
        "serialize/source.py",
        "        and model.serialize is SyncableModel.serialize\n",
        "",
        (f"{_TESTS}/test_own_code.py::test_a_serialize_of_the_models_own",),
    ),
    Mutation(
        "receivers-of-post-init-run",
        "serialize/source.py",
        "        not is_observed\n        and ",
        "        ",
        (f"{_TESTS}/test_own_code.py::test_a_receiver_that_changes_instances",),
    ),
    Mutation(
        "fields-with-a-value-of-their-own-give-it",
        "serialize/source.py",
        "        type(field).value_from_object is Field.value_from_object\n        and ",
        "        ",
        (f"{_TESTS}/test_own_code.py::test_a_field_whose_value_from_object_is_its_own",),
    ),
    Mutation(
        "fields-that-serialize-to-text-do",
        "serialize/source.py",
        '        and not getattr(field, "morango_serialize_to_string", False)\n',
        "",
        (f"{_TESTS}/test_own_code.py::test_a_field_that_serializes_to_a_text_of_its_own",),
    ),
    Mutation(
        "descriptors-in-a-fields-place-are-asked",
        "serialize/source.py",
        "        and is_plain_attribute(model, field)",
        "        and object in [object] or is_plain_attribute(model, field)",
        (f"{_TESTS}/test_own_code.py::test_a_descriptor_in_a_fields_place",),
    ),
    Mutation(
        "what-a-manager-prefetches-is-there",
        "serialize/source.py",
        "        prefetch_related_objects(chunk, *lookups)\n",
        "",
        (f"{_TESTS}/test_managers.py::test_a_manager_that_fetches_beforehand_what_serialize_wants",),
    ),
    Mutation(
        "numbers-that-are-not-finite-have-a-name",
        "serialize/encoding.py",
        "return _NOT_FINITE.get(text, text)",
        "return text",
        (f"{_TESTS}/test_values.py::test_a_float",),
    ),
    Mutation(
        "times-with-an-offset-are-djangos",
        "serialize/columns.py",
        '            and value[19:20] in ("", ".")  # no offset\n',
        "",
        (f"{_TESTS}/test_values.py::test_a_time_that_was_written_by_others",),
    ),
    Mutation(
        "deletions-are-counted",
        "serialize/store.py",
        '    sql.count(records.values("id"), saver)\n',
        "",
        (f"{_TESTS}/test_deletions.py::test_counters_of_deletions",),
    ),
    Mutation(
        "deletions-of-another-profile-wait",
        "serialize/store.py",
        "    deleted = DeletedModels.objects.filter(profile=profile)\n",
        "    deleted = DeletedModels.objects.all()\n",
        (f"{_TESTS}/test_deletions.py::test_a_deletion_of_another_profile_waits",),
    ),
    Mutation(
        "a-hard-deletion-empties-the-conflicts",
        "serialize/store.py",
        'serialized="{}", conflicting_serialized_data="")',
        'serialized="{}")',
        (f"{_TESTS}/test_deletions.py::test_a_hard_deletion_empties_the_record",),
    ),
    Mutation(
        "deletions-are-forgotten-in-one-statement",
        "serialize/store.py",
        "    notes._raw_delete(connection.alias)",
        "    notes.delete()",
        (f"{_TESTS}/test_statements.py::test_the_rows_of_a_chunk_take_no_statement_each",),
    ),
    Mutation(
        "each-prefix-has-its-counter",
        "serialize/store.py",
        'sql.raise_database_counters(sync_filter or [""], saver)',
        'sql.raise_database_counters([""], saver)',
        (f"{_TESTS}/test_filters.py::test_overlapping_and_nested_prefixes",),
    ),
    Mutation(
        "one-edited-row-leaves-the-others-clean",
        "serialize/dirty_bits.py",
        "    for chunk in Items(stream(ids, CHUNK_ROWS)) | Buffer(CHUNK_ROWS):\n"
        "        _mark_unchanged(queryset.model, chunk)\n",
        "",
        (f"{_TESTS}/test_concurrency.py::test_an_edit_that_is_committed_meanwhile_stays_to_be_serialized",),
        database="postgresql",
    ),
)
