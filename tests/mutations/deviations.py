"""Mutations that do as Morango does where we differ on purpose: one for each row of docs/fidelity.md."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

_DEVIATIONS = "parity/test_deviations.py"
_SERIALIZATION = "parity/serialization"

_NAMED = (
    "any(carrier.model in m.morango_model_dependencies for m in"
    " __import__('morango_celery.upstream').upstream.registered_models(carrier.store.profile) if {which})"
)

MUTATIONS = (
    Mutation(
        "deleted-records-stay-dirty",
        "deserialization/sink.py",
        "                self.result.deleted += 1\n",
        "                if not carrier.store._self_ref_fk:\n"
        "                    self._returned.append((carrier.store.id, None, None))\n"
        "                self.result.deleted += 1\n",
        (f"{_DEVIATIONS}::test_deleted_records_become_clean",),
    ),
    Mutation(
        "propagated-deletions-stay-dirty",
        "deserialization/sink.py",
        "            self._noted[carrier.propagated_deletion][store.id] = store.profile\n",
        "            self._noted[carrier.propagated_deletion][store.id] = store.profile\n"
        "            self._returned.append((store.id, None, None))\n",
        (f"{_DEVIATIONS}::test_records_deleted_with_their_target_become_clean",),
    ),
    Mutation(
        "propagated-deletion-levels",
        "deserialization/validate.py",
        "elif (noted := self.context.noted_deletion(store_id)) is not None:",
        "elif (noted := None) is not None:",
        (f"{_DEVIATIONS}::test_deletion_propagates_over_any_number_of_levels",),
    ),
    Mutation(
        "one-bad-record",
        "deserialization/one_by_one.py",
        "            for carrier in culprits:\n",
        "            if isinstance(error, TypeError | LookupError):\n"
        "                raise\n"
        "            for carrier in culprits:\n",
        (f"{_DEVIATIONS}::test_any_error_of_a_record_costs_only_itself",),
    ),
    Mutation(
        "quarantined-records",
        "runs/passes.py",
        "    if not run.retry_errors:\n        in_error &= ~is_quarantined()\n",
        "",
        (f"{_DEVIATIONS}::test_quarantined_record_is_left_alone",),
    ),
    Mutation(
        "protected-rows",
        "deserialization/sink.py",
        "            if is_no_records_fault(error):\n",
        "            if is_no_records_fault(error) or type(error).__name__ == 'ProtectedError':\n",
        (f"{_DEVIATIONS}::test_protected_row_costs_only_the_record_that_would_delete_it",),
    ),
    Mutation(
        "references-that-are-no-ids",
        "deserialization/prefetch.py",
        "    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, ValidationError):\n",
        "    except ValueError:\n",
        (f"{_DEVIATIONS}::test_reference_that_is_no_id_costs_only_its_record",),
    ),
    Mutation(
        "failed-targets",
        "deserialization/validate.py",
        "        for position, (target_name, reference) in enumerate(references):\n"
        "            if self.context.failed_in_this_run(reference.to_pk):\n",
        "        for name, reference in references:\n"
        "            self._resolve(carrier, name, reference)\n"
        "        for position, (target_name, reference) in enumerate(references := []):\n"
        "            if self.context.failed_in_this_run(reference.to_pk):\n",
        (f"{_DEVIATIONS}::test_unsaved_target_fails_its_records_only",),
    ),
    Mutation(
        "targets-outside-the-store",
        "deserialization/validate.py",
        "if self.context.row_exists(field, store_id) or",
        "if state is not None and self.context.row_exists(field, store_id) or",
        (f"{_DEVIATIONS}::test_target_in_the_app_table_alone_counts",),
    ),
    Mutation(
        "unregistered-models",
        "runs/plan.py",
        "    return (*found, Step((), unregistered=True))\n",
        "    return found\n",
        (f"{_DEVIATIONS}::test_unregistered_model_is_an_error_of_its_record",),
    ),
    Mutation(
        "parents-outside-the-filter",
        "deserialization/validate.py",
        "if tree_key is not None and self.context.row_exists(tree_key, parent_id):",
        "if False:",
        (f"{_DEVIATIONS}::test_parent_outside_the_filter_counts_if_it_is_there",),
    ),
    Mutation(
        "deleted-orphans",
        "deserialization/validate.py",
        "        # Parents first: a child's verdict depends on its parent's\n",
        "        for carrier in group:\n"
        "            if carrier.store.deleted and carrier.has_model and self._parent_problem(carrier):\n"
        "                self._validate_in_tree(carrier)\n",
        (f"{_DEVIATIONS}::test_deleted_record_needs_no_parent",),
    ),
    Mutation(
        "row-order",
        "runs/passes.py",
        "    if not needs_another_pass(run):\n",
        "    if True:\n",
        (f"{_DEVIATIONS}::test_order_of_records_does_not_matter",),
    ),
    Mutation(
        "local-edits",
        "deserialization/statements.py",
        "DO UPDATE SET {updates} WHERE {_overwritable(fields)}",
        "DO UPDATE SET {updates}",
        (f"{_DEVIATIONS}::test_local_edit_wins",),
    ),
    Mutation(
        "other-ids",
        "deserialization/identity.py",
        "        if key is not None and key != store.id:\n",
        "        if False:\n",
        (f"{_DEVIATIONS}::test_record_writes_no_row_but_its_own",),
    ),
    Mutation(
        "dirty-parents-called-missing",
        "deserialization/validate.py",
        "            return dirty_parent() if state.dirty else None\n",
        f"            named = {_NAMED.format(which='traits_of(m).in_tree')}\n"
        "            said = missing_parent if named else dirty_parent\n"
        "            return said() if state.dirty else None\n",
        (
            "parity/test_proxies.py::test_dirty_parent_of_another_proxy_is_called_dirty_where_morango_calls_it_missing",
        ),
    ),
    Mutation(
        "trees-in-other-passes",
        "deserialization/validate.py",
        "        if traits.in_tree:\n",
        f"        if traits.in_tree and not {_NAMED.format(which='not traits_of(m).in_tree')}:\n",
        (
            "parity/test_proxies.py::test_invalid_parent_of_another_proxy_fails_its_children_where_morango_aborts",
        ),
    ),
    Mutation(
        "auto-now",
        "deserialization/rows.py",
        "        columns.append(Column(field, convert, field_equivalent(type(field)) is not None))\n",
        "        if getattr(field, 'auto_now', False):\n"
        "            from django.db import connection\n"
        "            from django.utils.timezone import now\n"
        "            def convert(values):\n"
        "                return [connection.ops.adapt_datetimefield_value(now()) for _ in values]\n"
        "        columns.append(Column(field, convert, field_equivalent(type(field)) is not None))\n",
        ("parity/test_clock.py::test_clocks_of_a_new_row_are_the_synced_ones",),
    ),
    Mutation(
        "times-beyond-the-calendar",
        "deserialization/values.py",
        "        value.astimezone(datetime.UTC)\n",
        "        pass\n",
        ("parity/test_unreadable_times.py::test_time_beyond_the_calendar_is_its_records_error",),
        database="postgresql",
    ),
    Mutation(
        "own-queries",
        "deserialization/batch.py",
        "attempt(savepoints=True)",
        "attempt()",
        ("parity/test_model_code.py::test_query_that_the_database_refuses_is_the_records_error",),
    ),
    Mutation(
        "unreadable-stored-json",
        "serialization/update.py",
        "    except (ValueError, RecursionError):\n        return text",
        "    except ZeroDivisionError:\n        return text",
        (
            f"{_SERIALIZATION}/test_failures.py::test_edit_of_what_the_store_has_unreadably_is_stored_where_morango_fails",
        ),
    ),
    Mutation(
        "several-deleted-targets",
        "deserialization/task.py",
        "        if hard:\n",
        "        if self.propagated_deletion is not None:\n"
        "            raise ValueError('duplicate key')\n"
        "        if hard:\n",
        (f"{_DEVIATIONS}::test_several_deleted_targets_note_one_deletion",),
    ),
    Mutation(
        "null-references",
        "deserialization/valid_references.py",
        "            app_model.cached_clean_fields(known, sync_filter=sync_filter)\n",
        "            self.__dict__.setdefault('seen', {}).update(known)\n"
        "            app_model.cached_clean_fields(self.__dict__['seen'], sync_filter=sync_filter)\n",
        ("parity/test_names.py::test_null_in_a_tree_is_judged_by_each_foreign_key_to_a_table",),
    ),
    Mutation(
        "many-prefixes",
        "reading/prefixes.py",
        "FEW = 20\n",
        "FEW = 1_000_000\n",
        (f"{_DEVIATIONS}::test_filter_may_have_more_prefixes_than_sqlite_nests_conditions",),
    ),
    Mutation(
        "edits-while-serializing",
        "serialization/dirty_bits.py",
        "        if not is_isolation_error(error):\n            raise\n",
        "        raise\n",
        (
            f"{_SERIALIZATION}/test_concurrency.py::test_edit_that_is_committed_meanwhile_stays_to_be_serialized",
        ),
        database="postgresql",
    ),
    Mutation(
        "waiting-for-partitions",
        "serialization/store.py",
        "ATTEMPTS = 5\n",
        "ATTEMPTS = 1\n",
        (
            f"{_SERIALIZATION}/test_concurrency.py::test_serialization_that_saw_edits_before_another_took_them_begins_again",
        ),
        database="postgresql",
    ),
    Mutation(
        "signals-of-others",
        "deserialization/muting.py",
        "    token = _muted.set(_muted.get().union(signals))\n    try:\n        yield\n    finally:\n"
        "        _muted.reset(token)\n",
        "    from morango.sync.utils import mute_signals\n    with mute_signals(*signals):\n        yield\n",
        ("parity/test_side_effects.py::test_another_thread_is_heard_meanwhile",),
    ),
)
