"""Signals are muted for who asks for it, and for nobody else."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_delete, pre_save
from morango.sync.utils import mute_signals

from morango_celery.deserialization.muting import install, muted
from worker.school.models import Account

MUTABLE = (pre_save, post_save, post_delete)


@pytest.fixture
def heard() -> Iterator[list[ModelSignal]]:
    """Return the signals that a receiver has heard."""
    signals: list[ModelSignal] = []

    def hear(signal: ModelSignal, **kwargs: object) -> None:
        signals.append(signal)

    for signal in (*MUTABLE, pre_delete):
        signal.connect(hear, sender=Account)
    yield signals
    for signal in (*MUTABLE, pre_delete):
        signal.disconnect(hear, sender=Account)


def send(signal: ModelSignal) -> None:
    signal.send(Account)
    signal.send_robust(Account)


def in_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("signal", MUTABLE)
def test_muted_signal_reaches_no_receiver(signal: ModelSignal, heard: list[ModelSignal]) -> None:
    with muted(signal):
        send(signal)
    assert heard == []


def test_other_senders_and_signals_are_heard(heard: list[ModelSignal]) -> None:
    with muted(post_delete):
        send(pre_delete)
        send(post_save)
    assert heard == [pre_delete] * 2 + [post_save] * 2


def test_blocks_may_be_nested(heard: list[ModelSignal]) -> None:
    with muted(post_delete):
        with muted(pre_save, post_save):
            for signal in MUTABLE:
                send(signal)
        send(post_delete)
        send(post_save)
    send(post_delete)
    assert heard == [post_save] * 2 + [post_delete] * 2


def test_receivers_are_heard_again_after_an_error(heard: list[ModelSignal]) -> None:
    with pytest.raises(ZeroDivisionError), muted(post_delete):
        raise ZeroDivisionError
    send(post_delete)
    assert heard == [post_delete] * 2


@pytest.mark.parametrize("signal", MUTABLE)
def test_other_threads_are_heard_meanwhile(signal: ModelSignal, heard: list[ModelSignal]) -> None:
    receivers = copy.copy(signal.receivers)
    with muted(signal):
        assert signal.receivers == receivers
        in_a_thread(lambda: send(signal))
        assert heard == [signal] * 2
        send(signal)
    assert heard == [signal] * 2


def test_threads_that_mute_at_the_same_time_may_end_in_any_order(heard: list[ModelSignal]) -> None:
    """If receivers were removed and restored, the last thread would restore none."""
    begun, ended = threading.Event(), threading.Event()

    def mute() -> None:
        with muted(post_delete):
            begun.set()
            ended.wait(20)
            send(post_delete)

    thread = threading.Thread(target=mute)
    with muted(post_delete):
        thread.start()
        assert begun.wait(20)
    send(post_delete)
    ended.set()
    thread.join()
    send(post_delete)
    assert heard == [post_delete] * 4


def test_morangos_own_muting_goes_on_as_before(heard: list[ModelSignal]) -> None:
    with mute_signals(post_delete):
        send(post_delete)
    assert heard == []
    send(post_delete)
    assert heard == [post_delete] * 2


def test_second_installation_changes_nothing(heard: list[ModelSignal]) -> None:
    install()
    send(post_delete)
    assert heard == [post_delete] * 2
