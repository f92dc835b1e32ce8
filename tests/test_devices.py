"""The runner of a device, as its worker sees it."""

from collections.abc import Callable
from typing import Any

import pytest

from transcription import processes
from transcription.whisper.engine import Event
from transcription.workers import devices


class Child:
    """A child process that says what the test lets it say."""

    born: "list[Child]" = []

    def __init__(self, arguments: list[str], *, on_line: Callable[[Event | None], None], **_: Any) -> None:
        self.on_line = on_line
        self.is_running = True
        self.born.append(self)

    def stop(self) -> None:
        self.is_running = False

    def wait(self) -> int:
        assert not self.is_running, "it would be waited for without end"
        return -9


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The children in the order of their birth."""
    monkeypatch.setattr(Child, "born", [])
    monkeypatch.setattr(processes, "LineChild", Child)
    return Child.born


LATE: list[Event | None] = [None, {"event": "segment", "section": 1, "segment": {}}]


@pytest.mark.parametrize("late", LATE)
def test_what_a_dead_runner_says_late_is_not_taken_for_the_next_ones(born: list[Child], late: Event | None) -> None:
    runner = devices.Runner("cpu")
    runner.start()
    born[0].is_running = False
    runner.start()
    born[0].on_line(late)  # from its thread, which the machine was too busy to run before
    born[1].on_line({"event": "done", "section": 2})
    assert runner._next(1.0) == {"event": "done", "section": 2}


def test_the_end_of_a_runner_is_noticed(born: list[Child]) -> None:
    runner = devices.Runner("cpu")
    runner.start()
    born[0].is_running = False
    born[0].on_line(None)
    with pytest.raises(devices.RunnerExited, match="-9"):
        runner._next(1.0)
