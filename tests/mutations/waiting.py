"""Rules that keep one thing from waiting for another: held rows, lost workers, wrong clocks, waiting
sessions."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

_HELD = "faults/test_held.py"
_DATABASE = "integration/test_attempts.py::TestTheDatabase"

MUTATIONS = (
    Mutation(
        "a-message-of-a-batch-that-is-executed-is-dropped",
        "runs/attempts.py",
        "        not_executed(batch_id),\n        ~Batch",
        "        ~Batch",
        (f"{_DATABASE}::test_message_for_a_batch_that_is_executed_is_dropped_without_waiting",),
        "postgresql",
    ),
    Mutation(
        "a-batch-that-is-held-is-not-sent-again",
        "runs/overdue.py",
        '    return rows.select_for_update(of=("self",), skip_locked=True)\n',
        "    return rows\n",
        (f"{_HELD}::test_held_row_keeps_one_process_and_no_other_run",),
        "postgresql",
    ),
    Mutation(
        "a-lock-is-waited-for-within-limits",
        "runs/limits.py",
        "    if limits is None or not dialect().has_timeouts:\n",
        "    if True:\n",
        (f"{_HELD}::test_batch_that_waits_too_long_for_a_lock_frees_its_process",),
        "postgresql",
    ),
    Mutation(
        "a-frozen-worker-holds-its-batch-within-limits",
        "runs/limits.py",
        "    if limits.idle_seconds is not None:\n",
        "    if False:\n",
        (f"{_HELD}::test_batch_of_a_frozen_worker_is_completed_by_another",),
        "postgresql",
    ),
    Mutation(
        "a-session-whose-process-is-gone-ends",
        "runs/limits.py",
        "    if postgresql.pg_version >= CHECKS_CLIENTS_SINCE:\n",
        "    if False:\n",
        (f"{_HELD}::test_session_of_a_killed_process_does_not_go_on_waiting",),
        "postgresql",
    ),
    Mutation(
        "a-lost-worker-is-missed-soon",
        "runs/overdue.py",
        "    return min(LOST_AFTER_SECONDS, settings.STALLED_AFTER_SECONDS / 3)\n",
        "    return settings.STALLED_AFTER_SECONDS\n",
        (f"{_HELD}::test_run_of_a_killed_worker_waits_for_no_time_limit",),
        "postgresql",
    ),
    Mutation(
        "times-are-the-databases",
        "clock.py",
        "    if not dialect(using).tells_time:\n        return Value(",
        "    if True:\n        return Value(",
        ("faults/test_clock.py::test_recovery_by_a_wrong_clock_takes_nothing_for_lost",),
        "postgresql",
    ),
    Mutation(
        "payloads-are-kept-by-the-databases-clock",
        "clock.py",
        "    if not dialect(using).tells_time:\n        later = ",
        "    if True:\n        later = ",
        ("payloads/test_backends.py::test_machine_whose_clock_is_ahead_removes_nothing_that_others_hold",),
        "postgresql",
    ),
    Mutation(
        "a-session-is-told-until-it-has-moved-on",
        "runs/completion.py",
        "ended.filter(~stays | long_ended).update(",
        "ended.update(",
        (
            "integration/test_sync_controller.py"
            "::test_the_outcome_of_a_run_that_is_over_at_once_is_written_over_started",
        ),
        "postgresql",
    ),
    Mutation(
        "a-session-that-waits-after-all-is-told",
        "operations.py",
        "        if told_by_worker and run.session_notified and not run.is_finished:\n",
        "        if False:\n",
        (
            "integration/test_sync_controller.py"
            "::test_session_of_a_run_that_nobody_was_to_tell_is_told_once_it_waits",
        ),
        "postgresql",
    ),
    Mutation(
        "a-run-that-ends-after-the-last-look-is-not-waited-for",
        "operations.py",
        "            if not left.update(session_notified=False):\n",
        "            if left.update(session_notified=False):\n",
        ("integration/test_request_wait.py::test_run_that_ends_after_the_last_look_is_answered_completed",),
        "postgresql",
    ),
    Mutation(
        "a-batch-that-celery-cancels-is-not-blamed",
        "worker/task_context.py",
        "        if terminate_handler_fired():\n",
        "        if False:\n",
        ("faults/test_redis.py::test_batch_that_celery_cancels_when_redis_is_lost_is_not_blamed",),
        "postgresql",
    ),
    Mutation(
        "what-outlasts-the-servers-patience-counts",
        "runs/attempts.py",
        "        last_error = attempt.reason_to_count(error)\n",
        '        last_error = ""\n',
        (f"{_DATABASE}::test_record_whose_code_outlasts_the_servers_patience_is_counted_and_ends_as_poison",),
        "postgresql",
    ),
    Mutation(
        "a-row-that-a-lost-session-holds-is-waited-for-within-limits",
        "runs/attempts.py",
        "            if not hold(batch):\n                return\n",
        "",
        (f"{_DATABASE}::test_row_that_a_lost_session_still_holds_is_waited_for_within_limits",),
        "postgresql",
    ),
    Mutation(
        "a-merge-that-outlasts-the-servers-patience-counts",
        "runs/completion.py",
        "                    if not attempt.reason_to_count(error):\n",
        "                    if True:\n",
        (f"{_DATABASE}::test_merge_at_a_runs_end_that_outlasts_the_servers_patience_is_given_up",),
        "postgresql",
    ),
    Mutation(
        "an-end-that-fails-lets-nobody-wait",
        "runs/recovery.py",
        "            errors.append(error)\n",
        "            raise\n",
        ("integration/test_recovery.py::TestRecovery::test_end_that_cannot_be_followed_up_lets_nobody_wait",),
    ),
)
