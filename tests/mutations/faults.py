"""What keeps runs safe while workers, broker and database fail."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

MUTATIONS = (
    Mutation(
        "an-attempt-is-counted-before-it-is-made",
        "runs/attempts.py",
        '        begun = batch.update(attempts=F("attempts") + 1, attempted_at=timezone.now(), trouble="")\n',
        '        begun = batch.update(attempted_at=timezone.now(), trouble="")\n',
        ("integration/test_poison.py::test_a_record_that_kills_its_worker_is_isolated",),
        "postgresql",
    ),
    Mutation(
        "a-start-is-counted-before-it-is-made",
        "runs/opening.py",
        '.update(attempts=F("attempts") + 1) == 1\n',
        '.update(attempts=F("attempts")) == 1\n',
        ("faults/test_start.py::test_a_start_that_kills_its_worker_each_time_fails_the_run",),
        "postgresql",
    ),
    Mutation(
        "messages-of-a-start-take-turns",
        "runs/opening.py",
        "    with taking_turns(run_id):\n",
        "    if True:\n",
        ("faults/test_start.py::test_messages_that_come_at_the_same_time_are_one_attempt",),
        "postgresql",
    ),
    Mutation(
        "recovery-gets-past-what-kills-it",
        "runs/handover.py",
        '    if left.update(attempts=F("attempts") + 1):\n',
        "    if left:\n",
        ("faults/test_start.py::test_what_follows_a_runs_end_does_not_kill_one_recovery_after_another",),
        "postgresql",
    ),
    Mutation(
        "recovery-sends-stalled-batches",
        "runs/recovery.py",
        "        sent += dispatch.batch(batch)\n",
        "        pass\n",
        ("faults/test_recovery.py::test_everywhere_at_once",),
        "postgresql",
    ),
    Mutation(
        "recovery-sends-runs-that-nobody-was-told-of",
        "runs/recovery.py",
        "        sent += dispatch.start(run)\n",
        "        pass\n",
        ("faults/test_recovery.py::test_everywhere_at_once",),
        "postgresql",
    ),
    Mutation(
        "one-opens-the-next-stage",
        "runs/producer.py",
        "        if run.state != Run.State.RUNNING or run.open_batches:\n",
        "        if run.state != Run.State.RUNNING:\n",
        ("integration/test_batches.py::TestAtTheSameTime::test_of_many_that_advance_a_run_one_does",),
        "postgresql",
    ),
    Mutation(
        "a-cancelled-runs-batch-is-not-executed",
        "runs/execute.py",
        "    if run.is_finished:\n",
        "    if False:\n",
        ("integration/test_cancel.py",),
    ),
    Mutation(
        "another-batchs-ids-are-refused",
        "runs/execute.py",
        "        batch.require(store_ids)\n",
        "        pass\n",
        ("integration/test_batches.py",),
    ),
    Mutation(
        "a-message-that-does-not-fit-is-refused",
        "intake.py",
        "        if problem:\n",
        "        if False:\n",
        ("faults/test_foreign_messages.py::test_they_are_refused_and_the_worker_lives",),
        "postgresql",
    ),
    Mutation(
        "what-is-no-message-is-dropped",
        "intake.py",
        "        if READER in handlers:\n",
        "        if False:\n",
        ("faults/test_foreign_messages.py::test_what_is_no_message_at_all_is_dropped_and_the_worker_lives",),
        "postgresql",
    ),
    Mutation(
        "an-outage-is-retried",
        "tasks.py",
        "        if is_transient(error):\n",
        "        if False:\n",
        ("faults/test_postgresql.py",),
        "postgresql",
    ),
)
