"""Finds speech in recordings, by a child process: no worker imports the networks that do it."""

import queue
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transcription import errors, processes
from transcription.logs import timed
from transcription.whisper.cutting import Span

BEAT_SECONDS = 1.0
PROGRAM = ("-m", "transcription.whisper.vad")


@dataclass(frozen=True)
class Heard:
    """Stretches of speech in a decoded sound, in seconds, in order; those in doubt are among them."""

    stretches: tuple[Span, ...] = ()
    doubtful: frozenset[Span] = frozenset()


Events = queue.SimpleQueue[dict[str, Any] | None]  # of one recording; None: the child has died


class SpeechFinder:
    """This worker's child that finds speech, started when it is first needed, and again after it died.

    Several threads may call `find` at once; the child takes turns with their recordings, a piece of each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: processes.LineChild | None = None
        self._queues: dict[str, Events] = {}  # by the recording's id in the child

    @timed("finding speech")
    def find(self, pcm: Path, *, on_beat: Callable[[float], None]) -> Heard:
        """The speech in decoded sound (`whisper/pcm.py`).

        `on_beat` gets the seconds done so far, at least every second. What it raises passes through, and the child
        forgets the recording. Raises EngineFailed.
        """
        recording, events = uuid.uuid4().hex, Events()
        self._open(recording, events, pcm)
        try:
            return _follow(events, on_beat)
        finally:
            self._close(recording)

    def _open(self, recording: str, events: Events, pcm: Path) -> None:
        with self._lock:
            if self._child is None or not self._child.is_running:
                self._stop_child()
                self._queues = {}  # the thread of the child that died puts None into the queues of the old dict
                self._child = processes.LineChild([sys.executable, *PROGRAM], on_line=partial(_dispatch, self._queues))
            self._queues[recording] = events
            try:
                self._child.say({"do": "find", "id": recording, "pcm": str(pcm)})
            except OSError as error:
                raise errors.EngineFailed(detail=f"speech could not be looked for ({error})") from error
            if not self._child.is_running:  # it may have died before the queue was in the dict
                events.put(None)

    def _close(self, recording: str) -> None:
        with self._lock:
            self._queues.pop(recording, None)
            if self._child is not None and self._child.is_running:
                try:
                    self._child.say({"do": "close", "id": recording})
                except OSError:
                    self._stop_child()

    def stop(self) -> None:
        """End the child and wait for it."""
        with self._lock:
            self._stop_child()

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


def _dispatch(queues: dict[str, Events], event: dict[str, Any] | None) -> None:
    """Put an event into its recording's queue. None, that the child has died, goes into all of them."""
    if event is None:
        for events in list(queues.values()):
            events.put(None)
    elif (events_of_one := queues.get(event["id"])) is not None:  # its recording may be closed at any moment
        events_of_one.put(event)


def _follow(events: Events, on_beat: Callable[[float], None]) -> Heard:
    done = 0.0
    while True:
        on_beat(done)
        try:
            event = events.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            continue
        match event:
            case {"event": "progress", "seconds": done}:
                pass
            case {"event": "speech", "stretches": stretches, "doubtful": doubtful}:
                return Heard(tuple(map(_span, stretches)), frozenset(map(_span, doubtful)))
            case {"event": "error", "detail": detail}:
                raise errors.EngineFailed(detail=detail)
            case None:
                raise errors.EngineFailed(detail="the process that finds speech ended")


def _span(pair: list[float]) -> Span:
    start, end = pair
    return start, end
