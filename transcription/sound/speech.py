"""Where somebody speaks in a recording: asked of a child process, for no worker imports the network that hears it."""

import queue
import sys
import threading
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transcription import errors, processes
from transcription.logs import timed
from transcription.whisper.sections import Span

BEAT_SECONDS = 1.0
PROGRAM = ("-m", "transcription.whisper.vad")

Answers = queue.SimpleQueue[dict[str, Any] | None]


class SpeechFinder:
    """The child of this worker that finds speech: started when first needed, and again after it died.

    Several threads may ask at once; it hears their recordings in turn, a minute of each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: processes.LineChild | None = None
        self._askers: dict[str, Answers] = {}

    @timed("finding speech")
    def find(self, pcm: Path, *, on_beat: Callable[[float], None]) -> list[Span]:
        """Where speech is in 16 kHz mono s16le, in seconds, in order.

        `on_beat` gets the seconds heard so far, at least every second; what it raises passes through, and the child
        forgets the recording. Raises EngineFailed.
        """
        asker, answers = uuid.uuid4().hex, Answers()
        self._ask(asker, answers, pcm)
        try:
            return _follow(answers, on_beat)
        finally:
            self._forget(asker)

    def _ask(self, asker: str, answers: Answers, pcm: Path) -> None:
        with self._lock:
            if self._child is None or not self._child.is_running:
                self._stop_child()
                self._askers = {}  # who asked a child that died hears of it from that one's thread
                self._child = processes.LineChild([sys.executable, *PROGRAM], on_line=partial(_hand_out, self._askers))
            self._askers[asker] = answers
            try:
                self._child.say({"do": "find", "id": asker, "pcm": str(pcm)})
            except OSError as error:
                raise errors.EngineFailed(detail=f"speech could not be looked for ({error})") from error
            if not self._child.is_running:  # its end may have been told before this asker was there to hear it
                answers.put(None)

    def _forget(self, asker: str) -> None:
        with self._lock:
            self._askers.pop(asker, None)
            if self._child is not None and self._child.is_running:
                try:
                    self._child.say({"do": "close", "id": asker})
                except OSError:
                    self._stop_child()

    def stop(self) -> None:
        """End the child; nothing of it is left."""
        with self._lock:
            self._stop_child()

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


def _hand_out(askers: dict[str, Answers], line: dict[str, Any] | None) -> None:
    """Give a line to who asked; when the child has died, everybody's wait is over."""
    if line is None:
        for answers in list(askers.values()):
            answers.put(None)
    elif (asker := askers.get(line["id"])) is not None:  # it may stop asking at any moment
        asker.put(line)


def _follow(answers: Answers, on_beat: Callable[[float], None]) -> list[Span]:
    heard = 0.0
    while True:
        on_beat(heard)
        try:
            answer = answers.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            continue
        match answer:
            case {"event": "progress", "seconds": heard}:
                pass
            case {"event": "speech", "stretches": stretches}:
                return [(start, end) for start, end in stretches]
            case {"event": "error", "detail": detail}:
                raise errors.EngineFailed(detail=detail)
            case None:
                raise errors.EngineFailed(detail="the process that finds speech ended")
