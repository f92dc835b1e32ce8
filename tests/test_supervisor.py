"""One process tree."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from transcription.workers import supervisor
from transcription.workers.supervisor import Supervisor

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def childless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor without parts; what it does with signals is undone."""
    monkeypatch.setattr(supervisor, "Part", lambda *_: None)
    before = {number: signal.getsignal(number) for number in STOPS}
    made = Supervisor([])
    made.parts = []
    yield made
    for number, action in before.items():
        signal.signal(number, action)


def lives_through(running: Supervisor, number: int) -> bool:
    """Whether a supervisor that runs is still there after a signal."""
    lived = []

    def send() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), number)
        time.sleep(0.3)
        lived.append(not running.stopping.is_set())
        running.stopping.set()

    sender = threading.Thread(target=send)
    sender.start()
    running.run()
    sender.join()
    return lived[0]


@pytest.mark.parametrize("number", STOPS)
def test_it_stops_when_asked(childless: Supervisor, number: int) -> None:
    assert not lives_through(childless, number)


def test_under_nohup_it_outlives_its_terminal(childless: Supervisor) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert lives_through(childless, signal.SIGHUP)
