"""Syncs over HTTP whose run ends at the very moment at which its outcome is written elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from morango.constants import transfer_statuses
from morango.models import TransferSession

from morango_celery.runs.inprocess import run_in_process
from tests.integration.syncing import NO_WAIT, StartDevice, assert_completed_and_closed, settings_module
from tests.support.sync_state import the_run, waits_for_its_run
from tests.support.waiting import until
from tests.support.workers import StartServer, StartWorker

LATE = f"""
MORANGO_DESERIALIZE_OPERATIONS = ("late:Late", *MORANGO_DESERIALIZE_OPERATIONS)
{NO_WAIT}"""

LATE_OPERATION = """
import logging
import os
import time

from morango_celery.models import Run
from morango_celery.operations import DeserializeOperation

class Late(DeserializeOperation):
    def handle(self, context):
        answer = super().handle(context)
        while not Run.objects.get().has_ended or not os.path.exists(os.environ.get("LOOKED", "/")):
            time.sleep(0.02)
        logging.info("the run has ended, and the answer is %s", answer)
        return answer
"""


def test_sync_ends_though_its_run_ended_before_started_was_written(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a server whose middleware gets the operation's answer only after the run has ended
    late = settings_module(tmp_path, "late", LATE, late=LATE_OPERATION)
    celery_worker_process(concurrency=1)

    # When a device syncs
    client = device(live_http_server(**late))

    # Then its sync ends
    assert client.wait_until_ended(timeout_seconds=90) == 0, client.log()
    assert "the run has ended, and the answer is started" in (tmp_path / "server1.log").read_text()
    until(lambda: the_run().session_notified, "noted")
    assert_completed_and_closed()


@pytest.mark.slow
def test_sync_ends_though_a_request_overwrites_the_sessions_outcome(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a server whose view reads the session, and saves all its columns after the outcome was written
    slow = settings_module(
        tmp_path,
        "slow",
        f"""
        {NO_WAIT}
        import logging
        import time

        from django.apps import AppConfig

        class Slow(AppConfig):
            name = "slow_settings"

            def ready(self):
                from morango.api.viewsets import TransferSessionViewSet
                from morango.models import TransferSession

                save = TransferSessionViewSet.perform_update

                def save_late(self, serializer):
                    read = serializer.instance
                    if (read.transfer_stage, read.transfer_stage_status) == ("deserializing", "started"):
                        while TransferSession.objects.get().transfer_stage_status == "started":
                            time.sleep(0.02)
                        logging.info("the outcome is written over")
                    save(self, serializer)

                TransferSessionViewSet.perform_update = save_late

        INSTALLED_APPS = [*INSTALLED_APPS, "slow_settings.Slow"]
        """,
    )
    celery_worker_process(concurrency=1)

    # When a device syncs, then its sync ends
    client = device(live_http_server(**slow))
    assert client.wait_until_ended() == 0, client.log()
    assert "the outcome is written over" in (tmp_path / "server1.log").read_text()
    until(lambda: the_run().session_notified, "noted")
    assert_completed_and_closed()


@pytest.mark.slow
def test_sync_ends_though_started_is_written_while_a_worker_looks(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker, tmp_path: Path
) -> None:
    # Given a worker that looks for STARTED a moment before the server writes it, and goes on after that
    late = settings_module(tmp_path, "late", LATE, late=LATE_OPERATION)
    looked = {"LOOKED": str(tmp_path / "looked")}
    early = settings_module(
        tmp_path,
        "early",
        """
        import logging
        import os
        import pathlib
        import time

        from django.apps import AppConfig
        from django.db.backends.signals import connection_created

        class Early(AppConfig):
            name = "early_settings"

            def ready(self):
                connection_created.connect(self.watch)

            def watch(self, connection, **_):
                if self.look not in connection.execute_wrappers:
                    connection.execute_wrappers.append(self.look)

            def look(self, execute, sql, params, many, context):
                result = execute(sql, params, many, context)
                told = sql.startswith('UPDATE "morango_transfersession"')
                if told and self.statuses(context) == ["pending"]:
                    pathlib.Path(os.environ["LOOKED"]).touch()
                    while self.statuses(context) != ["started"]:
                        time.sleep(0.02)
                    logging.info("STARTED is written now")
                return result

            def statuses(self, context):
                other = context["connection"].copy()
                with other.cursor() as cursor:
                    cursor.execute("SELECT transfer_stage_status FROM morango_transfersession")
                    found = [status for (status,) in cursor.fetchall()]
                other.close()
                return found

        INSTALLED_APPS = [*INSTALLED_APPS, "early_settings.Early"]
        """,
    )
    worker = celery_worker_process(concurrency=1, **early, **looked)

    # When a device syncs, then its sync ends
    client = device(live_http_server(**late, **looked))
    assert client.wait_until_ended() == 0, client.log()
    assert "STARTED is written now" in worker.log()
    until(lambda: the_run().session_notified, "noted")
    assert_completed_and_closed()


def test_session_that_waits_after_its_run_has_ended_is_found_by_each_recovery(
    device: StartDevice, live_http_server: StartServer, celery_worker_process: StartWorker
) -> None:
    # Given a sync that waits for a run which has ended, whose worker was lost before it told the session, as
    # was what was sent to have another one tell it
    client = device(live_http_server())
    client.wait_until(waits_for_its_run, "waiting for its run")
    run_in_process(the_run())
    TransferSession.objects.update(transfer_stage_status=transfer_statuses.STARTED)
    assert client.is_running

    # When a worker recovers, then the sync ends
    celery_worker_process(concurrency=1)
    assert client.wait_until_ended() == 0, client.log()
    assert_completed_and_closed()
