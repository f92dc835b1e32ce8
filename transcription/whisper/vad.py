"""Finding speech in a recording: Silero's network as faster-whisper ships it, run over the file in pieces.

    python -m transcription.whisper.vad

A child process's program, for onnxruntime is imported in no worker. Recordings that are open at the same time are heard
in turn, a piece of each, so that a voice message does not wait for the end of a lecture. It ends with its parent.

    {"do": "find", "id": "…", "pcm": "…"}                            16 kHz mono s16le
    {"do": "close", "id": "…"}                                       forget it; nothing more is said of it but `closed`

    {"event": "progress", "id": "…", "seconds": 60.0}                heard so far, after each piece
    {"event": "speech", "id": "…", "stretches": [[1.31, 4.06], …]}   seconds
    {"event": "error", "id": "…", "detail": "…"}
    {"event": "closed", "id": "…"}

A stretch begins with a window (32 ms) that is speech by THRESHOLD and ends where the probability falls below
NEG_THRESHOLD and does not come back for SHORTEST_SILENCE. These are Silero's thresholds as in faster-whisper's
`get_speech_timestamps`, but for two things that are left to `sections.py`: a stretch is not padded, and silences that
are shorter than two seconds are told too, because each is a place to cut.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from transcription.whisper.json_lines import Line, Parent
from transcription.whisper.pcm import BYTES_A_SAMPLE, SAMPLE_RATE
from transcription.whisper.sections import SHORTEST_SILENCE, Span

WINDOW = 512  # samples of which the network gives one probability: 32 ms
CONTEXT = 64  # samples before a window that it hears again
STATE = (1, 1, 128)  # of its LSTM
PIECE_SECONDS = 20  # some 30 ms of work and 10 MB; longer pieces cost more memory and are no faster

THRESHOLD = 0.5
NEG_THRESHOLD = 0.35  # a window between the two goes on with what was


def main() -> None:
    parent = Parent()
    get_vad_model()  # kept by the library; the first recording shall not wait for it
    Finder(parent).run()


class Finder:
    """The loop: take recordings in, hear a piece of each, say what came of it."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.open: dict[str, Iterator[Line]] = {}

    def run(self) -> None:
        while True:
            while not (self.open and self.parent.commands.empty()):
                self.obey(self.parent.commands.get())
            for recording in list(self.open):
                self.hear_a_piece(recording)

    def obey(self, command: Line) -> None:
        recording = command["id"]
        if command["do"] == "close":
            self.open.pop(recording, None)
            self.parent.say({"event": "closed", "id": recording})
        else:
            self.open[recording] = find(Path(command["pcm"]))

    def hear_a_piece(self, recording: str) -> None:
        try:
            event = next(self.open[recording])
        except Exception as error:  # noqa: BLE001  (whatever is wrong with one recording is said, and the next one heard)
            event = {"event": "error", "detail": f"{type(error).__name__}: {error}"}
        if event["event"] != "progress":
            del self.open[recording]
        self.parent.say({**event, "id": recording})


def find(pcm: Path, *, piece_seconds: int = PIECE_SECONDS) -> Iterator[Line]:
    """Give `progress` after each piece of a recording, and `speech` at its end."""
    samples = pcm.stat().st_size // BYTES_A_SAMPLE
    duration = samples / SAMPLE_RATE
    heard = 0
    # 4.5 MB for ten hours. The network's own arrays are copied and let go at once: each that is kept lies between the
    # large ones that it works with, and memory grows by 20 MB a minute without end.
    probabilities = np.empty(-(-samples // WINDOW), np.float32)
    for piece in listen(pcm, windows=piece_seconds * SAMPLE_RATE // WINDOW):
        probabilities[heard : heard + len(piece)] = piece
        heard += len(piece)
        yield {"event": "progress", "seconds": min(duration, heard * WINDOW / SAMPLE_RATE)}
    found = [(start, min(end, duration)) for start, end in stretches(probabilities[:heard])]
    yield {"event": "speech", "stretches": found}


def listen(pcm: Path, *, windows: int) -> Iterator[NDArray[np.float32]]:
    """Give the probability that each window of a recording is speech, so many windows at a time.

    The network's state and its context go from piece to piece, so where a piece begins changes nothing.
    """
    network = get_vad_model().session  # runs in one thread, with a state that its own __call__ would begin anew
    h = c = np.zeros(STATE, np.float32)
    context = np.zeros((1, CONTEXT), np.float32)
    with pcm.open("rb") as file:
        while piece := file.read(BYTES_A_SAMPLE * WINDOW * windows):
            samples = np.frombuffer(piece, "<i2").astype(np.float32) / 32768.0
            samples = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)  # (windows, 512)
            before = np.concatenate([context, samples[:-1, -CONTEXT:]])  # (windows, 64)
            heard = {"input": np.concatenate([before, samples], axis=1), "h": h, "c": c}  # (windows, 576)
            probabilities, h, c = network.run(None, heard)
            context = samples[-1:, -CONTEXT:]
            yield probabilities


def stretches(probabilities: Iterable[float]) -> list[Span]:
    """Where speech begins and ends, in seconds, from the probabilities of windows; without padding."""
    found = []
    start = end = None  # of the stretch that is heard now; `end` while it may be over
    window = -1
    for window, probability in enumerate(probabilities):
        if probability >= THRESHOLD:
            start = window if start is None else start
            end = None
        elif probability < NEG_THRESHOLD and start is not None:
            end = window if end is None else end
            if (window - end) * WINDOW >= SHORTEST_SILENCE * SAMPLE_RATE:
                found.append((start, end))
                start = end = None
    if start is not None:
        found.append((start, window + 1 if end is None else end))
    return [(start * WINDOW / SAMPLE_RATE, end * WINDOW / SAMPLE_RATE) for start, end in found]


if __name__ == "__main__":
    main()
