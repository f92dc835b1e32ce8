"""The child process that finds speech: Silero's network as faster-whisper ships it, run over a file piece by piece.

    python -m transcription.whisper.vad

It is a child because no worker imports onnxruntime. Open recordings take turns, a piece of each, so that a voice
message does not wait for the end of a lecture. The process ends with its parent.

    {"do": "find", "id": "…", "pcm": "…"}                            see `pcm.py`
    {"do": "close", "id": "…"}                                       forget it; the answer `closed` is its last event

    {"event": "progress", "id": "…", "seconds": 60.0}                done so far, after each piece
    {"event": "speech", "id": "…", "stretches": [[1.31, 4.06], …]}   seconds
    {"event": "error", "id": "…", "detail": "…"}
    {"event": "closed", "id": "…"}

A stretch of speech begins with a window (32 ms) whose probability reaches THRESHOLD. It ends where the probability
falls below NEG_THRESHOLD and does not reach THRESHOLD again for SHORTEST_SILENCE. The thresholds are those of
faster-whisper's `get_speech_timestamps` (faster_whisper/vad.py). Two things differ, and are left to `sections.py`:
stretches are not padded, and silences shorter than two seconds end a stretch too, because each is a place to cut.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from transcription.whisper.cutting import SHORTEST_SILENCE, Span
from transcription.whisper.json_lines import Line, Parent
from transcription.whisper.pcm import BYTES_A_SAMPLE, SAMPLE_RATE

WINDOW = 512  # samples that get one probability: 32 ms
CONTEXT = 64  # samples of the window before, which the network gets again
STATE = (1, 1, 128)  # the shape of the LSTM's two states
PIECE_SECONDS = 20  # about 30 ms of work and 10 MB; longer pieces take more memory and are no faster

THRESHOLD = 0.5
NEG_THRESHOLD = 0.35  # between the two thresholds speech stays speech, and silence stays silence


def main() -> None:
    parent = Parent()
    get_vad_model()  # the library keeps it, so that the first recording does not wait for it
    Finder(parent).run()


class Finder:
    """The loop: read commands, run the network over a piece of each open recording, report events."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.open: dict[str, Iterator[Line]] = {}

    def run(self) -> None:
        while True:
            while not (self.open and self.parent.commands.empty()):
                self.execute(self.parent.commands.get())
            for recording in list(self.open):
                self.step(recording)

    def execute(self, command: Line) -> None:
        recording = command["id"]
        if command["do"] == "close":
            self.open.pop(recording, None)
            self.parent.say({"event": "closed", "id": recording})
        else:
            self.open[recording] = find(Path(command["pcm"]))

    def step(self, recording: str) -> None:
        """Take the next piece of a recording, and report its event."""
        try:
            event = next(self.open[recording])
        except Exception as error:  # noqa: BLE001  (what is wrong with one recording must not stop the others)
            event = {"event": "error", "detail": f"{type(error).__name__}: {error}"}
        if event["event"] != "progress":
            del self.open[recording]
        self.parent.say({**event, "id": recording})


def find(pcm: Path, *, piece_seconds: int = PIECE_SECONDS) -> Iterator[Line]:
    """Yield `progress` after each piece of a recording, and `speech` at its end."""
    samples = pcm.stat().st_size // BYTES_A_SAMPLE
    duration = samples / SAMPLE_RATE
    done = 0  # windows
    # 4.5 MB for ten hours. The network's own arrays are copied and dropped at once: any that is kept lies between the
    # large arrays of the network's work, and memory grows by 20 MB a minute without end.
    probabilities = np.empty(-(-samples // WINDOW), np.float32)  # (windows,)
    for piece in listen(pcm, windows=piece_seconds * SAMPLE_RATE // WINDOW):
        probabilities[done : done + len(piece)] = piece
        done += len(piece)
        yield {"event": "progress", "seconds": min(duration, done * WINDOW / SAMPLE_RATE)}
    spans = [(start, min(end, duration)) for start, end in stretches(probabilities[:done])]
    yield {"event": "speech", "stretches": spans}


def listen(pcm: Path, *, windows: int) -> Iterator[NDArray[np.float32]]:
    """Yield the probability that each window of a recording is speech, `windows` of them at a time.  # (windows,)

    The network's state and its context go from piece to piece, so the result does not depend on where a piece begins.
    """
    network = get_vad_model().session  # in one thread; its own __call__ would start with a fresh state
    h = c = np.zeros(STATE, np.float32)
    context = np.zeros((1, CONTEXT), np.float32)  # (1, 64)
    with pcm.open("rb") as file:
        while piece := file.read(BYTES_A_SAMPLE * WINDOW * windows):
            samples = np.frombuffer(piece, "<i2").astype(np.float32) / 32768.0  # (samples,)
            samples = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)  # (windows, 512)
            contexts = np.concatenate([context, samples[:-1, -CONTEXT:]])  # (windows, 64)
            inputs = np.concatenate([contexts, samples], axis=1)  # (windows, 576)
            probabilities, h, c = network.run(None, {"input": inputs, "h": h, "c": c})  # (windows,), STATE, STATE
            context = samples[-1:, -CONTEXT:]
            yield probabilities


def stretches(probabilities: Iterable[float]) -> list[Span]:
    """The spans of speech, in seconds, from the probabilities of windows; without padding."""
    spans = []
    start = end = None  # windows of the current stretch; `end` is set while the stretch may be over
    window = -1
    for window, probability in enumerate(probabilities):
        if probability >= THRESHOLD:
            start = window if start is None else start
            end = None
        elif probability < NEG_THRESHOLD and start is not None:
            end = window if end is None else end
            if (window - end) * WINDOW >= SHORTEST_SILENCE * SAMPLE_RATE:
                spans.append((start, end))
                start = end = None
    if start is not None:
        spans.append((start, window + 1 if end is None else end))
    return [(start * WINDOW / SAMPLE_RATE, end * WINDOW / SAMPLE_RATE) for start, end in spans]


if __name__ == "__main__":
    main()
